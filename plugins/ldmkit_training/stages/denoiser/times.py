"""Distributions of the noise levels in training."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from statistics import NormalDist
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from ldmkit import Draws, Process, Value

_GOLDEN = (math.sqrt(5) - 1) / 2
_EDGE = 1e-9


class _Times(Value, ABC):
    """
    Args:
        stratified: spread a step's rows evenly over the distribution instead of drawing each on its own: the loss
            varies less from step to step, and every row still has the same distribution.
    """

    stratified: bool = False

    @abstractmethod
    def sigma(self, process: Process, u: float) -> float:
        """Noise level at quantile u in [0, 1) of this distribution; increasing in u."""

    def sigmas(self, process: Process, draws: Draws, purpose: str = "time") -> list[float]:
        """One noise level per row."""
        return [self.sigma(process, u) for u in self.quantiles(draws, purpose)]

    def quantiles(self, draws: Draws, purpose: str) -> Sequence[float]:
        """Numbers in [0, 1), one per row."""
        if not self.stratified:
            quantiles: list[float] = draws.uniform(purpose).tolist()
            return quantiles
        # the additive recurrence of the golden ratio spreads evenly for any number of rows, on any process's share
        offset = float(Draws(draws.seed, draws.step, (0,)).uniform(purpose))
        return [(offset + row * _GOLDEN) % 1.0 for row in draws.rows]


class UniformTimes(_Times):
    """The process's own distribution: uniform over a table's timesteps or a flow's times, lognormal in EDM."""

    type: Literal["uniform"] = "uniform"

    def sigma(self, process: Process, u: float) -> float:
        return process.sigma(u)


class PowerTimes(_Times):
    """Quantile u ** exponent of the process's distribution: below 1 trains high noise more often, above 1 low noise."""

    type: Literal["power"] = "power"
    exponent: float = Field(default=0.6, gt=0)

    def sigma(self, process: Process, u: float) -> float:
        return process.sigma(u**self.exponent)


class LogitNormalTimes(_Times):
    """Quantile sigmoid(mean + std * n), n unit normal, of the process's distribution (Esser et al. 2024, equation 19).

    For a flow that is uniform in t this is the paper's distribution of t; a table's timesteps follow it too.
    """

    type: Literal["logit-normal"] = "logit-normal"
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)

    def sigma(self, process: Process, u: float) -> float:
        return process.sigma(1 / (1 + math.exp(-(self.mean + self.std * _normal(u)))))


class LogNormalTimes(_Times):
    """log sigma = mean + std * n, n unit normal, kept within the process's levels (Karras et al. 2022, table 1)."""

    type: Literal["log-normal"] = "log-normal"
    mean: float = -1.2
    std: float = Field(default=1.2, gt=0)

    def sigma(self, process: Process, u: float) -> float:
        level = math.exp(self.mean + self.std * _normal(u))
        return min(max(level, process.sigma_min), process.sigma_max)


Times: TypeAlias = Annotated[UniformTimes | PowerTimes | LogitNormalTimes | LogNormalTimes, Field(discriminator="type")]


def _normal(u: float) -> float:
    return NormalDist().inv_cdf(min(max(u, _EDGE), 1 - _EDGE))
