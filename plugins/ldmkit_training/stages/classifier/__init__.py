"""Training classifiers of noisy latents, for guidance."""
