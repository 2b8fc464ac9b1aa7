"""The contracts, one module per kind of part: what a plugin implements and what it is given. `ldmkit` exports them all.

Modules (codec, denoiser, conditioner, adapter) own weights and have a frozen `Config`; strategies (process, sampler,
grid, guidance) are frozen values. The state of a run is always x = x0 + sigma * n; sigmas are floats.
"""
