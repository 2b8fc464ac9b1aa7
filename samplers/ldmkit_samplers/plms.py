"""Pseudo linear multistep sampling."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ldmkit.contracts import Denoise, Sampler, Step
from ldmkit_samplers.heun import LONG_STEP, corrected

ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Weights of the newest, second newest ... slope by how many are at hand (Liu et al. 2022, PNDM, equation 12)."""


class PLMS(Sampler):
    """Liu et al. 2022 (PNDM) as latent diffusion runs it: one pseudo improved Euler step, then Adams-Bashforth 2, 3, 4.

    The weights are those of equal steps whatever the grid, which leaves order 2 on grids that are smooth but not even
    in sigma. The first step calls the network twice, unless it goes to sigma 0. A long step (`LONG_STEP`) is the first
    one or Euler's, and slopes from before it are not used after it.
    `Step.x0` is x extrapolated to sigma 0 along the combined slope.
    """

    order: ClassVar[int | None] = 2

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        count = len(sigmas) - 1
        slopes: deque[Tensor] = deque(maxlen=4)  # x - x0 of past steps, newest first: sigma times the predicted noise
        for i, weights in enumerate(_weights(sigmas)):
            sigma, after = sigmas[i], sigmas[i + 1]
            x0 = denoise(x, sigma)
            slopes.appendleft(x - x0)
            if i == 0:
                moved = corrected(denoise, x, x0, sigma, after)
            else:
                moved = x.add(slopes[0], alpha=weights[0])
                for slope, weight in zip(list(slopes)[1:], weights[1:], strict=False):
                    moved.add_(slope, alpha=weight)
            x0 = torch.lerp(x, moved, sigma / (sigma - after)) if after else moved
            x = moved
            yield Step(i, count, sigma, after, x, x0)

    def evaluations(self, steps: int) -> int:
        return steps + 1 if steps > 1 else 1


def _weights(sigmas: Sequence[float]) -> list[list[float]]:
    """For each transition the factors of x - x0, newest first."""
    rows, usable = [], 0
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        long = sigma > LONG_STEP * after > 0
        weights = ADAMS_BASHFORTH[0 if long else min(usable, 3)]
        rows.append([(after - sigma) * weight / sigmas[i - j] for j, weight in enumerate(weights)])
        usable = 0 if long else usable + 1
    return rows
