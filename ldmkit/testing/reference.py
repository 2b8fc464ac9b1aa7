"""Reference process, timestep table and grid for the suites of samplers, grids and guidance.

They are minimal, and independent of all installed parts, so that a sampler is judged by itself.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from ldmkit.contracts.denoised import Denoised, DenoiseWrapper, Need
from ldmkit.contracts.grid import Grid
from ldmkit.contracts.process import Process
from ldmkit.contracts.step import Denoise

Prediction: TypeAlias = Literal["eps", "v", "x0", "flow"]
PREDICTIONS: tuple[Prediction, ...] = ("eps", "v", "x0", "flow")
FAR = 2.0**20
"""Noise level from which runs of a flow start."""


class Reference(Process):
    """Noise levels of Stable Diffusion, with time log(sigma) / 4; those of a flow if the prediction is "flow".

    Args:
        prediction: what the network returns: the noise; v = alpha (n - sigma x0); x0; or, for a rectified flow, n - x0.
    """

    prediction: Prediction = "x0"

    @property
    def sigma_min(self) -> float:
        return 1e-3 if self.prediction == "flow" else 0.0292

    @property
    def sigma_max(self) -> float:
        return FAR if self.prediction == "flow" else 14.6146

    def time(self, sigma: float) -> float:
        return math.log(sigma) / 4

    def sigma_of_time(self, time: float) -> float:
        return math.exp(4 * time)

    def sigma(self, u: float) -> float:
        return math.exp(math.log(self.sigma_min) * (1 - u) + math.log(self.sigma_max) * u)

    def alpha(self, sigma: float) -> float:
        return 1 / (1 + sigma) if self.prediction == "flow" else 1 / math.sqrt(1 + sigma * sigma)

    def scalings(self, sigma: float) -> tuple[float, float, float]:
        a = self.alpha(sigma)
        rows = {
            "eps": (1.0, -sigma, a),
            "v": (a * a, -a * sigma, a),
            "x0": (0.0, 1.0, a),
            "flow": (a, -a * sigma, a),
        }
        return rows[self.prediction]


class Stepped(Reference):
    """`Reference` over timesteps 0 ... 999, equally spaced in log sigma."""

    count: ClassVar[int] = 1000

    @property
    def timesteps(self) -> int:
        return self.count

    def sigma_of_time(self, time: float) -> float:
        return self.sigma(time / (self.count - 1))

    def time(self, sigma: float) -> float:
        levels = [self.sigma_of_time(t) for t in range(self.count)]
        found = bisect_left(levels, sigma * (1 - 1e-9))
        return float(min(found, self.count - 1))


class Rho7(Grid):
    """Equal steps in sigma^(1/7) from largest to smallest (Karras et al. 2022, equation 5).

    Args:
        zero: `steps` such levels and then 0, instead of steps + 1 of them.
        limit: the largest level; runs start here even if the process has larger ones.
    """

    zero: bool = True
    limit: float | None = None

    def sigmas(self, process: Process, steps: int) -> list[float]:
        largest = process.sigma_max if self.limit is None else min(process.sigma_max, self.limit)
        high, low = largest ** (1 / 7), process.sigma_min ** (1 / 7)
        gaps = steps - 1 if self.zero else steps
        inner = [float((high + i / gaps * (low - high)) ** 7) for i in range(1, gaps)]
        levels = [largest, *inner, *([process.sigma_min] if gaps else [])]
        return [*levels, 0.0] if self.zero else levels


class Whole(DenoiseWrapper):
    """A function as the `denoise` of a model without guidance, with everything that a sampler may need.

    x0 is also the unconditional estimate, and the learned variance is the posterior's. Each estimate is one call of the
    function.
    """

    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        x0 = self.denoise(x, sigma)
        return Denoised(x0, x0, torch.zeros_like(x0))


def predicted(process: Process, estimate: Denoise) -> Denoise:
    """An exact estimate of x0 with a network's rounding: its output is rounded to the state's dtype, then scaled."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        skip, out, _ = process.scalings(sigma)
        exact = x.double()
        raw = (estimate(exact, sigma) - skip * exact) / out
        return (x * skip).add(raw.to(x.dtype), alpha=out)

    return Whole(denoise)
