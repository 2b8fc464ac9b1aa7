"""For each check of processes, processes that break its promise, each in one way."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor

from ldmkit import Process


class Preserving(Process):
    """A correct one: variance preserving, the network predicts v."""

    @property
    def sigma_min(self) -> float:
        return 0.01

    @property
    def sigma_max(self) -> float:
        return 50.0

    def time(self, sigma: float) -> float:
        return math.atan(sigma)

    def sigma_of_time(self, time: float) -> float:
        return math.tan(time)

    def sigma(self, u: float) -> float:
        return 0.01 * 5000.0**u

    def alpha(self, sigma: float) -> float:
        return 1 / math.hypot(1, sigma)

    def scalings(self, sigma: float) -> tuple[float, float, float]:
        a = self.alpha(sigma)
        return a * a, -a * sigma, a


class Exploding(Process):
    """Another correct one: nothing is scaled, the network predicts x0, and there is no level for a given time."""

    @property
    def sigma_min(self) -> float:
        return 0.1

    @property
    def sigma_max(self) -> float:
        return 10.0

    def time(self, sigma: float) -> float:
        return -math.log(sigma)

    def sigma(self, u: float) -> float:
        return 0.1 * 100.0**u

    def scalings(self, sigma: float) -> tuple[float, float, float]:
        return 0.0, 1.0, 1.0


class Ladder(Preserving):
    """A third: ten timesteps."""

    @property
    def sigma_max(self) -> float:
        return 0.01 * 2.0**9

    @property
    def timesteps(self) -> int:
        return 10

    def time(self, sigma: float) -> float:
        return float(round(math.log2(sigma / 0.01)))

    def sigma_of_time(self, time: float) -> float:
        return 0.01 * 2.0**time

    def sigma(self, u: float) -> float:
        return 0.01 * 2.0 ** min(int(10 * u), 9)


class Infinite(Preserving):
    """Pure noise at its end."""

    @property
    def sigma_max(self) -> float:
        return math.inf


class FromZero(Preserving):
    """No noise at its start."""

    @property
    def sigma_min(self) -> float:
        return 0.0


class Overflows(Preserving):
    """Its prior is not finite."""

    def prior(self, noise: Tensor, sigma: float) -> Tensor:
        return noise / 0


class InTensors(Preserving):
    """Scalings that are tensors."""

    def scalings(self, sigma: float) -> Any:
        return tuple(torch.tensor(v) for v in super().scalings(sigma))


class TensorAlpha(Preserving):
    """A tensor where a float belongs."""

    def alpha(self, sigma: float) -> Any:
        return torch.tensor(super().alpha(sigma))


class WrongSign(Preserving):
    """The target is that of -v."""

    def target(self, x0: Tensor, noise: Tensor, sigma: Any) -> Tensor:
        return -super().target(x0, noise, sigma)


class OneLevel(Preserving):
    """Takes the first row's noise level for all of them."""

    def target(self, x0: Tensor, noise: Tensor, sigma: Any) -> Tensor:
        return super().target(x0, noise, [sigma[0]] * len(sigma))


class NoScale(Preserving):
    """Shows the network nothing."""

    def scalings(self, sigma: float) -> tuple[float, float, float]:
        return *super().scalings(sigma)[:2], 0.0


class SingleTarget(Preserving):
    """A float32 target whatever it is asked for."""

    def target(self, x0: Tensor, noise: Tensor, sigma: Any) -> Tensor:
        return super().target(x0, noise, sigma).float()


class InPlacePrior(Preserving):
    """Works in the caller's noise."""

    def prior(self, noise: Tensor, sigma: float) -> Tensor:
        return noise.mul_(math.hypot(1, sigma))


class PicturesOnly(Preserving):
    """Cannot be used for videos."""

    def target(self, x0: Tensor, noise: Tensor, sigma: Any) -> Tensor:
        return super().target(x0, noise, sigma).reshape(x0.shape[0], x0.shape[1], x0.shape[2], -1)


class OwnFrame(Preserving):
    """Starts from unit noise, as if the state were in its own frame."""

    def prior(self, noise: Tensor, sigma: float) -> Tensor:
        return noise * 1.0


class Shifted(Preserving):
    """Its prior is not centred."""

    def prior(self, noise: Tensor, sigma: float) -> Tensor:
        return super().prior(noise, sigma) + 1


class Growing(Preserving):
    """Alpha rises with the noise."""

    def alpha(self, sigma: float) -> float:
        return sigma / math.hypot(1, sigma)


class Negative(Preserving):
    """Alpha is not positive."""

    def alpha(self, sigma: float) -> float:
        return -super().alpha(sigma)


class Backwards(Preserving):
    """u = 0 is the noisiest."""

    def sigma(self, u: float) -> float:
        return super().sigma(1 - u)


class Beyond(Preserving):
    """Trains levels that it does not have."""

    def sigma(self, u: float) -> float:
        return 2 * super().sigma(u)


class Constant(Preserving):
    """Trains one level only."""

    def sigma(self, u: float) -> float:
        return 1.0


class Saturates(Preserving):
    """Levels above 1 look the same to the network."""

    def time(self, sigma: float) -> float:
        return min(sigma, 1.0)


class Coarse(Ladder):
    """Two timesteps share a time."""

    def time(self, sigma: float) -> float:
        return float(round(math.log2(sigma / 0.01) / 2))


class Extrapolates(Ladder):
    """Right at every timestep, and beyond the next one in between."""

    def time(self, sigma: float) -> float:
        exact = math.log2(sigma / 0.01)
        return exact + 3 * math.sin(math.pi * exact) ** 2


class WrongInverse(Preserving):
    """The inverse of another clock."""

    def sigma_of_time(self, time: float) -> float:
        return math.tan(time) * 1.001


class OffByOne(Ladder):
    """Timestep 0 is the second level."""

    def sigma_of_time(self, time: float) -> float:
        return super().sigma_of_time(time + 1)

    def time(self, sigma: float) -> float:
        return super().time(sigma) - 1


class Draws(Preserving):
    """Draws its own quantile."""

    def sigma(self, u: float) -> float:
        return super().sigma(random.random())


class DrawsInTorch(Preserving):
    """Moves torch's global generator."""

    def time(self, sigma: float) -> float:
        torch.rand(1)
        return super().time(sigma)


BROKEN: dict[str, list[type[Process]]] = {
    "ends": [Infinite, FromZero, Overflows],
    "host-scalars": [InTensors, TensorAlpha],
    "target": [WrongSign, OneLevel, NoScale],
    "target-dtype": [SingleTarget, InPlacePrior, PicturesOnly],
    "prior": [OwnFrame, Shifted],
    "alpha": [Growing, Negative],
    "quantiles": [Backwards, Beyond, Constant],
    "time": [Saturates, Coarse, Extrapolates],
    "inverse-time": [WrongInverse, OffByOne],
    "pure": [Draws, DrawsInTorch],
}
"""Name of a check -> what it must catch."""
