"""Recorded runs of samplers, used by the checks of samplers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from ldmkit.contracts.sampler import Sampler
from ldmkit.contracts.step import Denoise, Step
from ldmkit.run.noise import Noise
from ldmkit.testing.reference import Reference, Rho7, Whole

PROCESS = Reference()
SHAPE = (3, 2, 2)
"""Default shape of one sample."""


@dataclass(frozen=True)
class Subject:
    """A sampler to be checked."""

    sampler: Sampler


@Whole
def humps(x: Tensor, sigma: float) -> Tensor:
    """E[x0 | x], exact, for samples of any shape whose elements are drawn from N(1, 1/4) or N(-1, 1/4)."""
    spread = 0.25 + sigma**2
    return x * (0.25 / spread) + torch.tanh(x / spread) * (sigma**2 / spread)


def levels(steps: int, zero: bool = True) -> list[float]:
    """A decreasing grid of steps + 1 noise levels of the reference process; the last is 0 or its smallest level."""
    return Rho7(zero=zero).sigmas(PROCESS, steps)


def start(
    seeds: Sequence[int], sigma: float, shape: Sequence[int] = SHAPE, dtype: torch.dtype = torch.float64
) -> Tensor:
    """A starting state of these seeds, (len(seeds), *shape)."""
    return Noise(seeds, shape)(0, "start").to(dtype) * sigma


def final(sampler: Sampler, seeds: Sequence[int], sigmas: Sequence[float], denoise: Denoise = humps) -> Tensor:
    """The last state of an ordinary run in float64."""
    run = sampler.steps(denoise, start(seeds, sigmas[0]), sigmas, Noise(seeds, SHAPE))
    return list(run)[-1].x


@dataclass
class Trial:
    """A recorded run.

    `kept` holds every tensor that was passed in or out, with a copy made at that time and a description.
    """

    steps: list[Step] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    draws: list[int] = field(default_factory=list)
    dtypes: set[torch.dtype] = field(default_factory=set)
    kept: list[tuple[Tensor, Tensor, str]] = field(default_factory=list)

    def keep(self, tensor: Tensor, what: str) -> Tensor:
        """Record a tensor's current values."""
        self.kept.append((tensor, tensor.clone(), what))
        return tensor


def trial(
    sampler: Sampler,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Callable[[int], Tensor],
    denoise: Denoise = humps,
) -> Trial:
    """Run a sampler to its end and record it."""
    seen = Trial()

    def watched(state: Tensor, sigma: float) -> Tensor:
        seen.calls.append(sigma)
        seen.dtypes.add(state.dtype)
        seen.keep(state, f"the state that denoise was called with at sigma {sigma:.4g}")
        return seen.keep(denoise(state, sigma), f"what denoise returned at sigma {sigma:.4g}")

    def drawn(index: int) -> Tensor:
        seen.draws.append(index)
        index = index if type(index) is int and index >= 0 else 0  # invalid indices are reported by `noise-once`
        return seen.keep(noise(index), f"noise({index})")

    seen.keep(x, "the starting state")
    for step in sampler.steps(Whole(watched), x, sigmas, drawn):
        seen.steps.append(step)
        seen.keep(step.x, f"x of step {step.index}")
        seen.keep(step.x0, f"x0 of step {step.index}")
    return seen


def ordinary(sampler: Sampler, steps: int, zero: bool = True) -> Trial:
    """A recorded run of two samples in float64."""
    sigmas = levels(steps, zero)
    return trial(sampler, start((1, 2), sigmas[0]), sigmas, Noise((1, 2), SHAPE))


def transitions(sigmas: Sequence[float]) -> list[tuple[float, float]]:
    """(sigma, sigma_next) of every step that a grid asks for."""
    return list(pairwise(sigmas))
