"""Samplers as somebody else would write them: correct, and without any in-tree helper."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from ldmkit import Example, Sampler, Step

Noise = Callable[[int], Tensor]
Denoise = Callable[[Tensor, float], Tensor]


class Straight(Sampler):
    """Euler's method."""

    order = 1

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            x0 = denoise(x, sigma)
            x = x0 + (after / sigma) * (x - x0)
            yield Step(i, len(sigmas) - 1, sigma, after, x, x0)


class Renewed(Sampler):
    """Euler's method with fresh noise; `share` 0 to 1 of the posterior's."""

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"share": 0.0}))
    share: float = 1.0

    @property
    def order(self) -> int | None:
        return None if self.share else 1

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            up = self.share * after * math.sqrt(1 - (after / sigma) ** 2)
            x0 = denoise(x, sigma)
            x = x0 + math.sqrt(after**2 - up**2) / sigma * (x - x0)
            if up:
                x.add_(noise(i), alpha=up)
            yield Step(i, len(sigmas) - 1, sigma, after, x, x0)


class TwoStage(Sampler):
    """An Euler step to the next level, and the mean of both estimates, which is of second order in log sigma."""

    order = 2

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            x0 = denoise(x, sigma)
            if after:
                ahead = x0 + (after / sigma) * (x - x0)
                x0 = (x0 + denoise(ahead, after)) / 2
            x = x0 + (after / sigma) * (x - x0)
            yield Step(i, len(sigmas) - 1, sigma, after, x, x0)

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1


class Jumps(Sampler):
    """For consistency models: to x0 at once, and back up to the next level by noise."""

    estimate = "end"

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            x0 = denoise(x, sigma)
            x = x0.clone().add_(noise(i), alpha=after) if after else x0.clone()
            yield Step(i, len(sigmas) - 1, sigma, after, x, x0)
