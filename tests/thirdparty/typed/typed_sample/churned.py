"""A new sampler: Euler's method with a little noise put back before every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

from pydantic import Field
from torch import Tensor

import ldmkit


class Churned(ldmkit.Sampler):
    """Karras et al. 2022, algorithm 2 without its correction, with one churn for all noise levels.

    Args:
        churn: by how much noise levels are raised in all, the steps together.
    """

    api: ClassVar[int] = 1
    order: ClassVar[int | None] = None
    churn: float = Field(default=0.4, ge=0)

    def steps(
        self,
        denoise: ldmkit.Denoise,
        x: Tensor,
        sigmas: Sequence[float],
        noise: Callable[[int], Tensor],
    ) -> Iterator[ldmkit.Step]:
        """See `ldmkit.Sampler.steps`."""
        count = len(sigmas) - 1
        for index, (sigma, after) in enumerate(pairwise(sigmas)):
            raised = sigma * (1 + min(self.churn / count, math.sqrt(2) - 1))
            noisy = x + math.sqrt(raised**2 - sigma**2) * noise(index).to(x.dtype)
            x0 = denoise(noisy, raised)
            x = x0 + (noisy - x0) * (after / raised)
            yield ldmkit.Step(index, count, sigma, after, x, x0)
