"""The stochastic sampler of Karras et al."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Example, Sampler, Step
from ldmkit_samplers.heun import corrected


class Churn(Sampler):
    """Karras et al. 2022, algorithm 2: noise raises sigma to sigma (1 + gamma), and a Heun step goes down from there.

    Noise never exceeds the level at which the run started: the network may not be trained on higher ones.

    Args:
        churn: S_churn; gamma is churn / steps, sqrt(2) - 1 at most.
        low, high: S_tmin and S_tmax, the levels between which noise is added.
        scale: S_noise, standard deviation of the added noise.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"churn": 0.0}))
    churn: float = Field(default=40.0, ge=0)
    low: float = Field(default=0.05, ge=0)
    high: float = Field(default=50.0, ge=0)
    scale: float = Field(default=1.003, gt=0)
    revision: Literal[1] = 1

    @property
    def order(self) -> int | None:
        return None if self.churn else 2

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        count = len(sigmas) - 1
        gamma = min(self.churn / count, math.sqrt(2) - 1)
        raised = [min(s * (1 + gamma), sigmas[0]) if self.low <= s <= self.high else s for s in sigmas]
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            if raised[i] > sigma:
                x = x.add(noise(i).to(x.dtype), alpha=self.scale * math.sqrt(raised[i] ** 2 - sigma**2))
            x0 = denoise(x, raised[i])
            x = corrected(denoise, x, x0, raised[i], after)
            yield Step(i, count, sigma, after, x, x0)

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1
