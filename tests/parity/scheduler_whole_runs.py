"""Whole runs of diffusers' schedulers beside what `read_scheduler` makes of their configs: one network, one noise.

The network is any smooth function of its input and of the timestep, so a timestep that is off shows too. It is called
as the pipelines call it: with the scaled state and the scheduler's own timestep.
"""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers_runs import GENERATED, Draws, one_path
from ldmkit_checkpoints.diffusers_scheduler import read_scheduler
from ldmkit_processes.discrete import Discrete
from torch import Tensor

from ldmkit.plugins import get

SHAPE = (2, 3, 4)


def network(x: Tensor, t: float) -> Tensor:
    """(B, 3, 4) -> the same."""
    return torch.tanh(0.7 * x.double() + 0.3 * x.double().roll(1, -1) + 0.2) * (0.8 + t / 4000)


def theirs(config: dict[str, Any], steps: int) -> Tensor:
    """The last state of diffusers' run."""
    scheduler = getattr(diffusers, config["_class_name"]).from_config(dict(config))
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(11)
    if config["_class_name"] == "DPMSolverSDEScheduler":
        scheduler.noise_sampler = one_path(Draws())
    z = start() * scheduler.init_noise_sigma
    more = {"generator": generator} if config["_class_name"] in (*GENERATED, "DPMSolverMultistepScheduler") else {}
    for t in scheduler.timesteps:
        z = scheduler.step(network(scheduler.scale_model_input(z, t), float(t)).float(), t, z, **more).prev_sample
    return z


def start() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))


def ours(config: dict[str, Any], steps: int) -> Tensor:
    """The last state of our run, in the frame of a pipeline's latents."""
    plan = read_scheduler(config)
    process = Discrete.of(plan.process.config)
    grid = get("grid", plan.grid.type).of(plan.grid.config)
    sampler = get("sampler", plan.sampler.type).of(plan.sampler.config)
    sigmas = grid.sigmas(process, steps)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        skip, out, scale = process.scalings(sigma)
        return skip * x + out * network(scale * x, process.time(sigma))

    x = process.prior(start().double(), sigmas[0])
    *_, step = sampler.steps(denoise, x, sigmas, Draws())
    return process.settled(step.x, step.sigma_next)


def distance(config: dict[str, Any], steps: int) -> float:
    """Of both runs, relative to the largest value of theirs."""
    right = theirs(config, steps).double()
    return float((ours(config, steps) - right).abs().max() / right.abs().max())
