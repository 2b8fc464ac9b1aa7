"""Whole runs of diffusers' schedulers beside what `read_scheduler` makes of their configs: one network, one noise.

The network is any smooth function of its input and of the timestep, so a timestep that is off shows too. It is called
as the pipelines call it: with the scaled state and the scheduler's own timestep.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import torch
from diffusers_runs import GENERATED, Draws, one_path
from ldmkit_checkpoints.diffusers.scheduler import read_scheduler
from ldmkit_processes.discrete import Discrete
from torch import Tensor

from ldmkit import Denoised, DenoiseWrapper, Grid, Need, Process, Sampler, get
from ldmkit.run.prepared import Prepared

SHAPE = (2, 3, 4)


def network(x: Tensor, t: float) -> Tensor:
    """(B, 3, 4) -> the same."""
    return torch.tanh(0.7 * x.double() + 0.3 * x.double().roll(1, -1) + 0.2) * (0.8 + t / 4000)


def variance(x: Tensor, t: float) -> Tensor:
    """(B, 3, 4) -> what a network with a learned variance has in the second half of its channels."""
    return torch.sin(x.double() + t / 300)


def theirs(config: dict[str, Any], steps: int, begin: int = 0, **call: Any) -> Tensor:
    """The last state of diffusers' run, of all steps but the first `begin`; `call` goes to every step."""
    scheduler = getattr(diffusers, config["_class_name"]).from_config(dict(config))
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(11)
    if config["_class_name"] == "DPMSolverSDEScheduler":
        scheduler.noise_sampler = one_path(Draws())
    z = start() * (1.0 if begin else scheduler.init_noise_sigma)
    draws = config["_class_name"] in (*GENERATED, "DPMSolverMultistepScheduler") or "eta" in call
    more = {**call, "generator": generator} if draws else call
    for t in scheduler.timesteps[begin:]:
        scaled = scheduler.scale_model_input(z, t)
        output = network(scaled, float(t))
        if str(config.get("variance_type")).startswith("learned"):
            output = torch.cat([output, variance(scaled, float(t))], dim=1)
        output = output.to(torch.get_default_dtype())
        z = scheduler.step(output, t, z, **more).prev_sample
    return z


def theirs_in_double(config: dict[str, Any], steps: int) -> Tensor:
    """The same by their own code, with every float32 in it made float64: their formulas without their rounding."""
    draw, single, double = torch.randn, torch.float32, torch.float64

    def drawn(*shape: Any, dtype: Any = None, **given: Any) -> Tensor:  # the numbers of the other run
        return draw(*shape, dtype=single, **given).to(double)

    with ExitStack() as patches:
        for owner, name, value in (
            *((torch, "float32", double), (np, "float32", np.float64)),
            *((torch, "randn", drawn), (Tensor, "float", Tensor.double)),
        ):
            patches.enter_context(mock.patch.object(owner, name, value))
        torch.set_default_dtype(double)
        patches.callback(torch.set_default_dtype, single)
        return theirs(config, steps)


def start() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))


def ours(config: dict[str, Any], steps: int, begin: int = 0) -> Tensor:
    """The last state of our run, in the frame of a pipeline's latents."""
    plan = read_scheduler(config)
    process = Discrete.of(plan.process.config)
    grid = get("grid", plan.grid.type).of(plan.grid.config)
    sampler = get("sampler", plan.sampler.type).of(plan.sampler.config)
    return run(process, sampler, grid, steps, begin)


def run(process: Process, sampler: Sampler, grid: Grid, steps: int, begin: int = 0) -> Tensor:
    """The same of any process, sampler and grid."""
    sigmas = tuple(grid.sigmas(process, steps))[begin:]

    denoise = Stand(process, set(sigmas))

    x = start().double() / process.alpha(sigmas[0]) if begin else process.prior(start().double(), sigmas[0])
    request = SimpleNamespace(sampler=sampler, grid=grid, steps=steps)
    evaluate = SimpleNamespace(process=process)
    parts: dict[str, Any] = {"request": request, "noise": Draws(), "evaluate": evaluate, "estimate": None}
    prepared = Prepared(size=SHAPE[1:], sigmas=sigmas, x=x, denoise=denoise, **parts)
    arrivals = prepared._arrivals()  # as `Prepared.steps` asks for them, with no network to hold and nothing counted
    going = sampler if arrivals is None else sampler.arriving(arrivals)
    *_, step = going.steps(denoise, x, sigmas, parts["noise"])
    return process.settled(step.x, step.sigma_next)


class Stand(DenoiseWrapper):
    """The network behind a process; `visited` are the noise levels of the grid."""

    def __init__(self, process: Process, visited: set[float]) -> None:
        super().__init__(self.x0)
        self.process, self.visited = process, visited

    def time(self, sigma: float) -> float:
        return self.process.time(sigma) if sigma in self.visited else self.process.time_between(sigma)

    def x0(self, x: Tensor, sigma: float) -> Tensor:
        skip, out, scale = self.process.scalings(sigma)
        return skip * x + out * network(scale * x, self.time(sigma))

    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        _, _, scale = self.process.scalings(sigma)
        return Denoised(self(x, sigma), variance=(variance(scale * x, self.time(sigma)) + 1) / 2)


def distance(config: dict[str, Any], steps: int, begin: int = 0) -> float:
    """Of both runs, relative to the largest value of theirs."""
    return apart(ours(config, steps, begin), theirs(config, steps, begin))


def apart(found: Tensor, right: Tensor) -> float:
    """Largest difference, relative to the largest value of the second."""
    return float((found - right.double()).abs().max() / right.double().abs().max())
