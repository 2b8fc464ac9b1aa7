"""The contracts, one kind of part a module: what a plugin implements, and what it receives; `ldmkit` exports them all.

Modules (codec, denoiser, conditioner, adapter) own weights and have a frozen `Config`; strategies (process, sampler,
grid, guidance) are frozen values. A run's state is in the frame x = x0 + sigma * n, always; sigmas are floats.
"""
