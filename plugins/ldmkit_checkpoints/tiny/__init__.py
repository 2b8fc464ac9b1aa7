"""Tiny autoencoders as taesd and diffusers publish them."""
