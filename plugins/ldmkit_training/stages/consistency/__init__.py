"""Training consistency decoders for the latents of a codec that exists."""
