"""Execution plans: faster ways to call a denoiser's network, with the same results."""
