"""A variance-preserving process by its angle."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

import ldmkit


class Angle(ldmkit.Process):
    """sigma = tan(angle), angle uniform in training; the network predicts v and reads the angle in thousandths.

    Args:
        lowest, highest: noise levels that are trained and visited.
    """

    api: ClassVar[int] = 1
    lowest: float = Field(default=0.01, gt=0)
    highest: float = Field(default=50.0, gt=0)

    @property
    def sigma_min(self) -> float:
        return self.lowest

    @property
    def sigma_max(self) -> float:
        return self.highest

    def time(self, sigma: float) -> float:
        """0 for no noise, 1000 for nothing else."""
        return math.atan(sigma) / (math.pi / 2) * 1000

    def sigma_of_time(self, time: float) -> float:
        return math.tan(time / 1000 * math.pi / 2)

    def sigma(self, u: float) -> float:
        low, high = math.atan(self.lowest), math.atan(self.highest)
        return min(max(math.tan(low + (high - low) * u), self.lowest), self.highest)

    def alpha(self, sigma: float) -> float:
        return 1 / math.hypot(1, sigma)

    def scalings(self, sigma: float) -> tuple[float, float, float]:
        a = self.alpha(sigma)
        return a * a, -a * sigma, a
