"""Training data: sources by convention, geometry, batches that resume at any step, latents encoded once."""
