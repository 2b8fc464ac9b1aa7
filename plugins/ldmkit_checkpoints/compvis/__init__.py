"""Latent-diffusion, Stable Diffusion and sgm as first published: a file of weights and the yaml beside it."""
