"""Restart sampling: an ODE solver that repeats one interval of noise levels with fresh noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Example, Sampler, SpecError, Step
from ldmkit_samplers.heun import corrected


class Restart(Sampler):
    """Xu et al. 2023, algorithm 1, with Heun steps and one restart interval.

    The step that crosses `low` stops there, and `rounds` times noise is added up to `high` and removed again before the
    run continues. A run that starts below `low` or ends above it does not restart; a `high` above the run's first level
    is lowered to it. Round k draws noise k.

    Args:
        low, high: noise levels of the interval.
        rounds: number of restarts.
        inner, share: number of Heun steps per restart, spaced as in Karras et al. 2022, equation 5: the larger of
            `inner` and this share of the run's steps. With a share of 0 their error does not fall as the run's steps
            increase.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"rounds": 2, "inner": 3}))
    order: ClassVar[int | None] = None
    low: float = Field(default=0.1, gt=0)
    high: float = Field(default=2.0, gt=0)
    rounds: int = Field(default=1, ge=1, le=100)
    inner: int = Field(default=4, ge=1, le=1000)
    share: float = Field(default=0.25, ge=0, le=1)
    revision: Literal[1] = 1

    def model_post_init(self, context: object) -> None:
        if self.high <= self.low:
            raise SpecError(
                "restart-interval", f"nothing lies between {self.low:g} and {self.high:g}", fits="low < high"
            )

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        count, high = len(sigmas) - 1, min(self.high, sigmas[0])
        rise = math.sqrt(max(high**2 - self.low**2, 0.0))
        levels = self._levels(high, count)
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            x0 = denoise(x, sigma)
            if sigma > self.low >= after:
                x = corrected(denoise, x, x0, sigma, self.low)
                for k in range(self.rounds):
                    x = x.add(noise(k).to(x.dtype), alpha=rise)
                    for upper, lower in pairwise(levels):
                        x = corrected(denoise, x, denoise(x, upper), upper, lower)
                if self.low > after:
                    x0 = denoise(x, self.low)
                    x = corrected(denoise, x, x0, self.low, after)
            else:
                x = corrected(denoise, x, x0, sigma, after)
            yield Step(i, count, sigma, after, x, x0)

    def evaluations(self, steps: int) -> int:
        """For a run that starts above `low` and has no step that ends exactly there."""
        return 2 * steps + 1 + 2 * self._inner(steps) * self.rounds

    def _inner(self, steps: int) -> int:
        return max(self.inner, math.ceil(self.share * steps))

    def _levels(self, high: float, steps: int) -> list[float]:
        first, last, count = high ** (1 / 7), self.low ** (1 / 7), self._inner(steps)
        return [high, *(float((first + (last - first) * i / count) ** 7) for i in range(1, count)), self.low]
