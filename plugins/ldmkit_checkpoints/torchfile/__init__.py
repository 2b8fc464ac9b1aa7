"""Torch files (`.ckpt`, `.pt`, `.pth`, `.bin`): the zip archive, the pickle in it, and the tensors, read lazily and safely."""
