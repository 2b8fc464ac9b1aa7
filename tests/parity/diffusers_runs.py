"""Runs of diffusers' schedulers beside our samplers: the exact denoiser of a Gaussian mixture, one grid, one noise.

diffusers keeps its tables in float32 and most of its schedulers cast the state to float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from torch import Tensor

from ldmkit import Grid, Process, Sampler
from ldmkit.testing.sampler.mixture import Mixture

SHAPE = (3, 4)
MIXTURE = Mixture.random(SHAPE)
SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
INTERPOLATED = ("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
GENERATED = ("DDPMScheduler", "EulerAncestralDiscreteScheduler", INTERPOLATED[1], "LCMScheduler", "TCDScheduler")
"""Classes that draw from a generator."""


@dataclass(frozen=True)
class Case:
    """A scheduler with its settings beside ours.

    Args:
        grid: of our run; None: the scheduler's own noise levels (`own_levels`).
        variance: the state is sqrt(alpha_bar) x rather than x.
        call: arguments of every step.
        injected: noise is handed to every step.
    """

    theirs: str
    ours: Sampler
    grid: Grid | None
    steps: int = 10
    settings: dict[str, Any] = field(default_factory=dict)
    variance: bool = True
    call: dict[str, Any] = field(default_factory=dict)
    injected: bool = False
    zero_snr: bool = False

    def __str__(self) -> str:
        extra = ",".join(f"{k}={v}" for k, v in self.settings.items())
        return f"{self.theirs}-{type(self.grid).__name__}-{self.steps}-{extra}"

    def scheduler(self, kind: str) -> Any:
        """Theirs, ready to run."""
        name = {"eps": "epsilon", "v": "v_prediction"}[kind]
        common = {} if self.theirs == "IPNDMScheduler" else {**SD, "prediction_type": name}
        scheduler = getattr(diffusers, self.theirs)(**common, **self.settings)
        scheduler.set_timesteps(self.steps)
        if self.theirs == "DPMSolverSDEScheduler":
            scheduler.noise_sampler = one_path(Draws())
        return scheduler


class Draws:
    """The noise that a scheduler draws from its generator, one call after the other, and the same again for us."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(11)
        self.drawn: dict[int, Tensor] = {}

    def __call__(self, index: int) -> Tensor:
        for i in range(len(self.drawn), index + 1):
            self.drawn[i] = torch.randn((2, *SHAPE), generator=self.generator)
        return self.drawn[index]


def one_path(noise: Callable[[int], Tensor]) -> Callable[[Any, Any], Tensor]:
    """Noise on one path of the SDE, for a solver that asks for it twice a step: half way and then to the end.

    In x = x0 + sigma n the path's noise at the end is (sigma'^2 / sigma_mid^2) of what it was half way, and fresh noise
    of standard deviation sigma' sqrt(1 - sigma'^2 / sigma_mid^2).
    """
    middle: list[float] = []
    count = iter(range(10_000))

    def draw(before: Any, after: Any) -> Tensor:
        sigma, end, index = float(before), float(after), next(count)
        if index % 2 == 0 or end == 0:
            middle[:] = [end]
            return noise(index).double()
        (mid,) = middle
        carried = end**2 / mid * math.sqrt(1 - (mid / sigma) ** 2)
        fresh = end * math.sqrt(1 - (end / mid) ** 2)
        return (carried * noise(index - 1).double() + fresh * noise(index).double()) / (
            end * math.sqrt(1 - (end / sigma) ** 2)
        )

    return draw


def predicted(x: Tensor, x0: Tensor, sigma: float, kind: str) -> Tensor:
    """What a network that predicts eps or v would return."""
    eps, alpha = (x - x0) / sigma, 1 / (1 + sigma * sigma) ** 0.5
    return eps if kind == "eps" else alpha * eps - alpha * sigma * x0


def own_levels(scheduler: Any) -> list[float]:
    """The noise levels of a scheduler's steps, the last one included, each once."""
    if isinstance(scheduler, diffusers.IPNDMScheduler):
        return [float(b / a) for a, b in zip(scheduler.alphas, scheduler.betas, strict=True)]
    if hasattr(scheduler, "sigmas"):
        return sorted({float(s) for s in scheduler.sigmas}, reverse=True)
    end = _level(scheduler, 0) if isinstance(scheduler, diffusers.TCDScheduler) else 0.0
    return [*sorted({_level(scheduler, t) for t in scheduler.timesteps}, reverse=True), end]


def _level(scheduler: Any, timestep: Any) -> float:
    bar = float(scheduler.alphas_cumprod.double()[int(timestep)])
    return math.sqrt((1 - bar) / bar)


def call_level(scheduler: Any, call: int, timestep: Any) -> float:
    """The noise level at which a scheduler wants the network's next output."""
    name = type(scheduler).__name__
    if name in INTERPOLATED and not scheduler.state_in_first_order:
        return float(scheduler.sigmas_interpol[call - (name == INTERPOLATED[1])])
    if name == "DPMSolverSDEScheduler" and not scheduler.state_in_first_order:
        return float(scheduler.mid_point_sigma)
    if name == "IPNDMScheduler":
        return float(scheduler.betas[call] / scheduler.alphas[call])
    return float(scheduler.sigmas[call]) if hasattr(scheduler, "sigmas") else _level(scheduler, timestep)


def their_run(case: Case, kind: str, x: Tensor) -> list[Tensor]:
    """States after each call of the scheduler, which starts from x = x0 + sigma n."""
    scheduler, noise, generator = case.scheduler(kind), Draws(), torch.Generator().manual_seed(11)
    z, states = x, list[Tensor]()
    for i, t in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(z.float(), t)
        sigma = call_level(scheduler, i, t)
        alpha = (1 + sigma**2) ** -0.5 if case.variance else 1.0
        z = (z * alpha).float() if i == 0 else z
        state = z.double() / alpha
        output = predicted(state, MIXTURE.denoise(state, sigma), sigma, kind).to(z.dtype)
        extra: dict[str, Any] = dict(case.call)
        if case.injected:
            extra["variance_noise"] = noise(i)
        elif case.theirs in GENERATED:
            extra["generator"] = generator
        z = scheduler.step(output, t, z, **extra).prev_sample
        states.append(z)
    return states


def our_run(case: Case, process: Process, x: Tensor, sigmas: list[float]) -> list[Tensor]:
    """States after each transition, in the frame of theirs."""
    steps = case.ours.steps(MIXTURE.denoise, x, sigmas, Draws())
    return [s.x * (process.alpha(s.sigma_next) if case.variance else 1.0) for s in steps]


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest value of the second one."""
    return float((a - b).abs().max() / b.abs().max())
