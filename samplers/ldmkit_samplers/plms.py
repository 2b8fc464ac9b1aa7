"""Pseudo linear multistep sampling."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ldmkit.contracts import Arrivals, Denoise, Sampler, Step
from ldmkit_samplers.first_order import retaken
from ldmkit_samplers.heun import LONG_STEP, corrected
from ldmkit_samplers.slopes import ADAMS_BASHFORTH, combined, equal_steps


class PLMS(Sampler):
    """Liu et al. 2022 (PNDM) as latent diffusion runs it: one pseudo improved Euler step, then Adams-Bashforth 2, 3, 4.

    The weights are those of equal steps whatever the grid, which leaves order 2 on grids that are smooth but not even
    in sigma. The first step calls the network twice, unless it goes to sigma 0. A long step is the first one or
    Euler's, and slopes from before it are not used after it.
    `Step.x0` is x extrapolated to sigma 0 along the combined slope.

    Args:
        long_step: sigma / sigma' from which on a step is long; None: none is, as in other software.
    """

    order: ClassVar[int | None] = 2
    long_step: float | None = Field(default=LONG_STEP, gt=1)
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        count = len(sigmas) - 1
        slopes: deque[Tensor] = deque(maxlen=4)
        for i, row in enumerate(equal_steps(sigmas, self.long_step)):
            sigma, after = sigmas[i], sigmas[i + 1]
            x0 = denoise(x, sigma)
            slopes.appendleft(x - x0)
            moved = combined(x0, slopes, row) if i else corrected(denoise, x, x0, sigma, after, self.long_step)
            x0 = torch.lerp(x, moved, sigma / (sigma - after)) if after else moved
            x = moved
            yield Step(i, count, sigma, after, x, x0)

    def evaluations(self, steps: int) -> int:
        return steps + 1 if steps > 1 else 1

    def arriving(self, arrivals: Arrivals) -> PLMS:
        return _Arriving(long_step=self.long_step, revision=self.revision, arrivals=arrivals)


class _Arriving(PLMS):
    """No step of it is long: where the steps go is another library's, and so is the rest."""

    arrivals: Arrivals

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        count = len(sigmas) - 1
        noises: deque[Tensor] = deque(maxlen=4)
        for i, (sigma, level) in enumerate(zip(sigmas, self.arrivals.levels, strict=False)):
            after = sigmas[i + 1]
            noises.appendleft((x - denoise(x, sigma)) / sigma)
            mean = combined_noise(noises)
            x0 = x.add(mean, alpha=-sigma)
            moved = x.add(mean, alpha=level - sigma).mul_(retaken(level, after))
            if i == 0 and count > 1:
                mean = torch.lerp(mean, (moved - denoise(moved, after)) / after, 0.5)
                origin = self.arrivals.origins[0]
                moved = x.mul(retaken(sigma, origin)).add_(mean, alpha=after - origin)
            x = moved
            yield Step(i, count, sigma, after, x, x0)


def combined_noise(noises: Sequence[Tensor]) -> Tensor:
    """Adams-Bashforth with the weights of equal steps, newest first; a new tensor."""
    first, *rest = ADAMS_BASHFORTH[len(noises) - 1]
    mean = noises[0] * first
    for value, weight in zip(list(noises)[1:], rest, strict=True):
        mean.add_(value, alpha=weight)
    return mean
