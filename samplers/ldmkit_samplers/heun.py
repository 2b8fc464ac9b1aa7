"""Heun's method on the probability-flow ODE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Sampler, Step

LONG_STEP = 20.0
"""sigma / sigma' above which the slope in sigma is meaningless at the step's other end: in the first step of a flow,
from sigma 2^20, or of a schedule with zero terminal SNR, from 4096."""


def is_long(sigma: float, after: float, limit: float | None) -> bool:
    """Whether the ratio of a transition's sigmas exceeds `limit`; False without a limit and for transitions to 0."""
    return limit is not None and sigma > limit * after > 0


class Heun(Sampler):
    """Karras et al. 2022, algorithm 1: an Euler step and a correction by the slope at its end, except at sigma 0.

    Long steps average the x0 estimates of both ends instead, which is the same method in log sigma.

    Args:
        long_step: a step is long if sigma / sigma' exceeds this; None: no step is, as in other software.
    """

    order: ClassVar[int | None] = 2
    long_step: float | None = Field(default=LONG_STEP, gt=1)
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        count = len(sigmas) - 1
        for i in range(count):
            sigma, after = sigmas[i], sigmas[i + 1]
            x0 = denoise(x, sigma)
            x = corrected(denoise, x, x0, sigma, after, self.long_step)
            yield Step(i, count, sigma, after, x, x0)

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1


def corrected(
    denoise: Denoise, x: Tensor, x0: Tensor, sigma: float, after: float, limit: float | None = LONG_STEP
) -> Tensor:
    """x at sigma' = `after`, with the mean of the slopes at both ends; Euler's method if `after` is 0."""
    ahead = torch.lerp(x0, x, after / sigma)
    if after == 0:
        return ahead
    x0_ahead = denoise(ahead, after)
    if is_long(sigma, after, limit):
        return torch.lerp(torch.lerp(x0, x0_ahead, 0.5), x, after / sigma)
    return torch.lerp(x, torch.lerp(x0_ahead, ahead, 2 - sigma / after), 0.5)
