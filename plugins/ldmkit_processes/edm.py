"""The preconditioned process of Karras et al. 2022 (EDM)."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import ClassVar

from pydantic import Field

from ldmkit import Example, Process


class EDM(Process):
    """x = x0 + sigma n with the preconditioning of Karras et al. 2022, table 1, last column.

    Args:
        sigma_data: standard deviation of the data.
        lowest, highest: the range of noise levels in training and sampling.
        p_mean, p_std: of log sigma in training (lognormal).
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"sigma_data": 1.0, "p_mean": 0.0}))
    sigma_data: float = Field(default=0.5, gt=0)
    lowest: float = Field(default=0.002, gt=0)
    highest: float = Field(default=80.0, gt=0)
    p_mean: float = -1.2
    p_std: float = Field(default=1.2, gt=0)

    @property
    def sigma_min(self) -> float:
        return self.lowest

    @property
    def sigma_max(self) -> float:
        return self.highest

    def time(self, sigma: float) -> float:
        return math.log(sigma) / 4

    def sigma_of_time(self, time: float) -> float:
        return math.exp(4 * time)

    def sigma(self, u: float) -> float:
        level = math.exp(self.p_mean + self.p_std * NormalDist().inv_cdf(min(max(u, 1e-9), 1 - 1e-9)))
        return min(max(level, self.lowest), self.highest)

    def scalings(self, sigma: float) -> tuple[float, float, float]:
        total = math.hypot(sigma, self.sigma_data)
        return (self.sigma_data / total) ** 2, sigma * self.sigma_data / total, 1 / total
