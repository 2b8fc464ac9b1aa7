"""The original layout of latent-diffusion, Stable Diffusion and sgm: a file of weights and its yaml."""
