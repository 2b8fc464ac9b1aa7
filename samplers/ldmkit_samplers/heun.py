"""Heun's method on the probability-flow ODE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ldmkit.contracts import Denoise, Sampler, Step

LONG_STEP = 20.0
"""sigma / sigma' from which on the slope in sigma says nothing about the step's other end: the first step of a flow,
from sigma 2^20, or of a schedule with zero terminal SNR, from 4096."""


class Heun(Sampler):
    """Karras et al. 2022, algorithm 1: an Euler step, corrected by the slope at its end; a step to 0 stays Euler's.

    A long step (`LONG_STEP`) averages the x0 estimates of its two ends instead, which is the same method in log sigma.
    """

    order: ClassVar[int | None] = 2
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        count = len(sigmas) - 1
        for i in range(count):
            sigma, after = sigmas[i], sigmas[i + 1]
            x0 = denoise(x, sigma)
            x = corrected(denoise, x, x0, sigma, after)
            yield Step(i, count, sigma, after, x, x0)

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1


def corrected(denoise: Denoise, x: Tensor, x0: Tensor, sigma: float, after: float) -> Tensor:
    """x at sigma' = `after`, by the mean of the slopes at both ends; Euler's where that is 0."""
    ahead = torch.lerp(x0, x, after / sigma)
    if after == 0:
        return ahead
    x0_ahead = denoise(ahead, after)
    if sigma > LONG_STEP * after:
        return torch.lerp(torch.lerp(x0, x0_ahead, 0.5), x, after / sigma)
    return torch.lerp(x, torch.lerp(x0_ahead, ahead, 2 - sigma / after), 0.5)
