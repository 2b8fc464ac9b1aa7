"""Torch files (`.ckpt`, `.pt`, `.pth`, `.bin`), read lazily and without executing code."""
