"""Rectified flow: straight lines between data and noise."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import ClassVar, Literal

from pydantic import Field

from ldmkit import Example, Process

LARGEST = 2.0**20
"""sigma_max: t = 1 has no finite sigma, so a run starts at t = 1 - 1e-6, for which the network gets t = 1."""


class Flow(Process):
    """z_t = (1 - t) x0 + t n, the network returns n - x0 (Liu et al. 2022; Esser et al. 2024, equation 13).

    For x = x0 + sigma n: sigma = t / (1 - t), alpha = 1 - t, t in [0, 1].

    Args:
        shift: moves the training distribution towards noise: sigma -> shift * sigma, which is
            t -> shift t / (1 + (shift - 1) t) (Esser et al. 2024, equation 23).
        time_scale: the network reads t * time_scale.
        density: distribution of training times before the shift: uniform in t, or logit-normal (same paper, equation
            19).
        loc, spread: parameters of the logit-normal.
        t_min: smallest time in training, and before 0 in sampling.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"shift": 3.0, "density": "logit-normal", "loc": 0.5}),
    )
    shift: float = Field(default=1.0, gt=0)
    time_scale: float = Field(default=1000.0, gt=0)
    density: Literal["uniform", "logit-normal"] = "uniform"
    loc: float = 0.0
    spread: float = Field(default=1.0, gt=0)
    t_min: float = Field(default=1e-3, gt=0, lt=1)

    @property
    def sigma_min(self) -> float:
        return self.t_min / (1 - self.t_min)

    @property
    def sigma_max(self) -> float:
        return LARGEST

    def alpha(self, sigma: float) -> float:
        return 1 / (1 + sigma)

    def time(self, sigma: float) -> float:
        t = 1.0 if sigma >= LARGEST else sigma / (1 + sigma)
        return t * self.time_scale

    def sigma_of_time(self, time: float) -> float:
        t = time / self.time_scale
        return LARGEST if t >= 1 else min(t / (1 - t), LARGEST)

    def sigma(self, u: float) -> float:
        if self.density == "uniform":
            unshifted = LARGEST if u >= 1 else u / (1 - u)
        else:
            inside = min(max(u, 1e-9), 1 - 1e-9)
            unshifted = math.exp(self.loc + self.spread * NormalDist().inv_cdf(inside))
        return min(max(self.shift * unshifted, self.sigma_min), LARGEST)

    def scalings(self, sigma: float) -> tuple[float, float, float]:
        a = self.alpha(sigma)
        return a, -a * sigma, a
