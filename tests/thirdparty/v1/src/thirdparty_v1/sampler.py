"""The midpoint rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

import ldmkit


class Midpoint(ldmkit.Sampler):
    """dx/dsigma = (x - x0) / sigma, with the slope of the middle of each step; the step to 0 is Euler's."""

    api: ClassVar[int] = 1
    order: ClassVar[int | None] = 2

    def steps(
        self, denoise: ldmkit.Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[ldmkit.Step]:
        """Two evaluations a step, one for the last."""
        count = len(sigmas) - 1
        for index, (sigma, after) in enumerate(pairwise(sigmas)):
            x0 = denoise(x, sigma)
            if after == 0:
                x = x0
            else:
                middle = (sigma + after) / 2
                half = x0 + (x - x0) * (middle / sigma)
                x0 = denoise(half, middle)
                x = x + (half - x0) * ((after - sigma) / middle)
            yield ldmkit.Step(index, count, sigma, after, x, x0)

    def evaluations(self, steps: int) -> int:
        """Of a run that ends at 0."""
        return 2 * steps - 1
