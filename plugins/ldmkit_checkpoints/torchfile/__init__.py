"""Torch files (`.ckpt`, `.pt`, `.pth`, `.bin`): the zip archive, the pickle in it, and tensors read lazily."""
