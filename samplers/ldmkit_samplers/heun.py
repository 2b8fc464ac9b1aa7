"""Heun's method on the probability-flow ODE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ldmkit.contracts import Denoise, Sampler, Step


class Heun(Sampler):
    """Karras et al. 2022, algorithm 1: an Euler step, corrected by the slope at its end; a step to 0 stays Euler's."""

    order: ClassVar[int | None] = 2

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        count = len(sigmas) - 1
        for i in range(count):
            sigma, after = sigmas[i], sigmas[i + 1]
            x0 = denoise(x, sigma)
            ahead = torch.lerp(x0, x, after / sigma)
            x = averaged(x, ahead, denoise(ahead, after), sigma / after) if after else ahead
            yield Step(i, count, sigma, after, x, x0)

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1


def averaged(x: Tensor, ahead: Tensor, x0_ahead: Tensor, ratio: float) -> Tensor:
    """x moved by the mean of two slopes: the one that took x to `ahead`, and (ahead - x0_ahead) / sigma'.

    Args:
        ratio: sigma / sigma'.
    """
    return torch.lerp(x, torch.lerp(x0_ahead, ahead, 2 - ratio), 0.5)
