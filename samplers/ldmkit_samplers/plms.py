"""Pseudo linear multistep sampling."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ldmkit.contracts import Denoise, Sampler, Step
from ldmkit_samplers.heun import corrected
from ldmkit_samplers.slopes import combined, equal_steps


class PLMS(Sampler):
    """Liu et al. 2022 (PNDM) as latent diffusion runs it: one pseudo improved Euler step, then Adams-Bashforth 2, 3, 4.

    The weights are those of equal steps whatever the grid, which leaves order 2 on grids that are smooth but not even
    in sigma. The first step calls the network twice, unless it goes to sigma 0. A long step (`LONG_STEP`) is the first
    one or Euler's, and slopes from before it are not used after it.
    `Step.x0` is x extrapolated to sigma 0 along the combined slope.
    """

    order: ClassVar[int | None] = 2
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        count = len(sigmas) - 1
        slopes: deque[Tensor] = deque(maxlen=4)
        for i, row in enumerate(equal_steps(sigmas)):
            sigma, after = sigmas[i], sigmas[i + 1]
            x0 = denoise(x, sigma)
            slopes.appendleft(x - x0)
            moved = combined(x0, slopes, row) if i else corrected(denoise, x, x0, sigma, after)
            x0 = torch.lerp(x, moved, sigma / (sigma - after)) if after else moved
            x = moved
            yield Step(i, count, sigma, after, x, x0)

    def evaluations(self, steps: int) -> int:
        return steps + 1 if steps > 1 else 1
