"""Latents encoded once and read in place of pictures."""
