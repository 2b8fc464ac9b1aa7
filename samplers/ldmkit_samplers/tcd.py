"""Strategic stochastic sampling of trajectory consistency models."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Example, Sampler, Step
from ldmkit_samplers.first_order import transitions


class TCD(Sampler):
    """Zheng et al. 2024 (TCD), strategic stochastic sampling: down to timestep s = (1 - gamma) t', then noise up to t'.

    In this frame s has a sigma_s <= sigma', and the way up adds noise of sqrt(sigma'^2 - sigma_s^2).

    Args:
        gamma: 0 follows the trajectory without noise (DDIM); 1 goes down to timestep 0, nearly to x0 as `LCM` does.
        beta_start, beta_end, timesteps: the schedule, linear in sqrt(beta), whose integer timesteps are t and s; by
            default that of Stable Diffusion. A sigma beyond the schedule counts as its last timestep.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"gamma": 0.0}), Example({"gamma": 1.0}))
    order: ClassVar[int | None] = None
    estimate: ClassVar[Literal["mean", "end", "distilled"]] = "distilled"
    gamma: float = Field(default=0.3, ge=0, le=1)
    beta_start: float = Field(default=0.00085, gt=0, lt=1)
    beta_end: float = Field(default=0.012, gt=0, lt=1)
    timesteps: int = Field(default=1000, ge=2, le=100_000)
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        pairs = []
        for sigma, after in pairwise(sigmas):
            share = self._share(after) if after else 0.0
            pairs.append((share * after / sigma, after * math.sqrt(1 - share * share)))
        return transitions(denoise, x, sigmas, pairs, noise)

    def _share(self, sigma: float) -> float:
        """sigma_s / sigma', where t' is the timestep nearest to sigma' and s = floor((1 - gamma) t') up to rounding
        errors."""
        table = _table(self.beta_start, self.beta_end, self.timesteps)
        above = min(max(bisect_left(table, sigma), 1), len(table) - 1)
        nearest = above if table[above] - sigma < sigma - table[above - 1] else above - 1
        return table[math.floor(round((1 - self.gamma) * nearest, 5))] / table[nearest]


@lru_cache(maxsize=8)
def _table(first: float, last: float, count: int) -> list[float]:
    """sigma of every timestep, increasing."""
    low, high, kept, table = math.sqrt(first), math.sqrt(last), 0.0, []
    for i in range(count):
        kept += math.log1p(-((low + (high - low) * i / (count - 1)) ** 2))  # log alpha_bar
        table.append(math.sqrt(math.expm1(-kept)))
    return table
