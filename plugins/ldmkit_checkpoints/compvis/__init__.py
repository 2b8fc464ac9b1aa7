"""The original layout of latent-diffusion, Stable Diffusion and sgm: one file of weights and the yaml that describes it."""
