"""Loss weightings by noise level.

Papers state their weights for one prediction or another. Here each is stated once, for the error of x0, and the
factor of the network's own loss follows from the process: with D = skip x + out F, an error of F is an error of x0
times `out`, so that factor = weight of x0's squared error * out^2. SNR is 1 / sigma^2, for latents of unit variance.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from ldmkit import Process, SpecError, Value


class _Weighting(Value, ABC):
    """A factor by noise level; with an absolute error in place of the squared one it is applied as it is."""

    def factor(self, process: Process, sigma: float) -> float:
        """Of the squared error of the network's own output (eps, v, x0, a flow's velocity, EDM's F)."""
        out = process.scalings(sigma)[1]
        return self.on_x0(1 / (sigma * sigma)) * out * out

    @abstractmethod
    def on_x0(self, snr: float) -> float:
        """Of the squared error of x0."""

    def bound(self, process: Process) -> Callable[[float], float]:
        """The factor by noise level, remembered: a table has few levels."""
        return lru_cache(maxsize=4096)(lambda sigma: self.factor(process, sigma))


class Uniform(_Weighting):
    """1 on what the network predicts: L_simple for eps (Ho et al. 2020, equation 14), Karras et al.'s for EDM."""

    type: Literal["uniform"] = "uniform"

    def factor(self, process: Process, sigma: float) -> float:
        return 1.0

    def on_x0(self, snr: float) -> float:
        raise NotImplementedError("depends on the prediction")


class MinSNR(_Weighting):
    """min(SNR, gamma) on x0 (Hang et al. 2023, section 3.4): min(1, gamma / SNR) on eps, min(SNR, gamma) / (SNR + 1)
    on v."""

    type: Literal["min-snr"] = "min-snr"
    gamma: float = Field(default=5.0, gt=0)

    def on_x0(self, snr: float) -> float:
        return min(snr, self.gamma)


class SNR(_Weighting):
    """SNR on x0: 1 on eps, whatever the network predicts."""

    type: Literal["snr"] = "snr"

    def on_x0(self, snr: float) -> float:
        return snr


class TruncatedSNR(_Weighting):
    """max(SNR, least) on x0 (Salimans & Ho 2022, section 4, with least = 1)."""

    type: Literal["truncated-snr"] = "truncated-snr"
    least: float = Field(default=1.0, gt=0)

    def on_x0(self, snr: float) -> float:
        return max(snr, self.least)


class SNRPlusOne(_Weighting):
    """SNR + 1 on x0: 1 on v of a variance-preserving process (Salimans & Ho 2022, section 4)."""

    type: Literal["snr-plus-one"] = "snr-plus-one"

    def on_x0(self, snr: float) -> float:
        return snr + 1


class P2(_Weighting):
    """1 / (k + SNR)^gamma on eps (Choi et al. 2022, equation 8)."""

    type: Literal["p2"] = "p2"
    k: float = Field(default=1.0, gt=0)
    gamma: float = Field(default=1.0, ge=0)

    def on_x0(self, snr: float) -> float:
        return float(snr / (self.k + snr) ** self.gamma)


class Debiased(_Weighting):
    """SNR^(-1/2) on eps (Yu et al. 2023, "Debias the training of diffusion models")."""

    type: Literal["debiased"] = "debiased"

    def on_x0(self, snr: float) -> float:
        return math.sqrt(snr)


class EDMWeighting(_Weighting):
    """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 on x0 (Karras et al. 2022, table 1)."""

    type: Literal["edm"] = "edm"
    sigma_data: float = Field(default=0.5, gt=0)

    def on_x0(self, snr: float) -> float:
        return snr + 1 / self.sigma_data**2


class Sigmoid(_Weighting):
    """sigmoid(bias - log SNR) on eps (Kingma & Gao 2023; Hoogeboom et al. 2024, section 3.1)."""

    type: Literal["sigmoid"] = "sigmoid"
    bias: float = -3.0

    def on_x0(self, snr: float) -> float:
        return snr / (1 + snr * math.exp(-self.bias))


Weighting: TypeAlias = Annotated[
    Uniform | MinSNR | SNR | TruncatedSNR | SNRPlusOne | P2 | Debiased | EDMWeighting | Sigmoid,
    Field(discriminator="type"),
]


@lru_cache(maxsize=16)
def elbo_weights(process: Process) -> tuple[float, ...]:
    """Weights of the variational bound by timestep, as the latent-diffusion code states them.

    eps: beta^2 / (2 posterior_variance alpha (1 - alpha_bar)), that of timestep 0 copied from timestep 1; x0:
    0.5 sqrt(alpha_bar) / (2 - alpha_bar), which is how its expression evaluates; v: 1.

    Raises:
        SpecError: `no-timesteps`: the process has no table.
    """
    steps = process.timesteps
    if steps is None:
        what = f"{type(process).__name__} has no timesteps, which the weights of the bound are defined on"
        raise SpecError("no-timesteps", what, where="objective", fits="elbo: 0, logvar: null, or a discrete process")
    sigmas = [process.sigma_of_time(float(t)) for t in range(steps)]
    skip = process.scalings(sigmas[-1])[0]
    bars = [1 / (1 + s * s) for s in sigmas]
    if skip == 0:
        return tuple(0.5 * math.sqrt(bar) / (2.0 - bar) for bar in bars)
    if skip != 1:
        return (1.0,) * steps
    weights = []
    for before, bar in pairwise(bars):
        alpha = bar / before
        variance = (1 - alpha) * (1 - before) / (1 - bar)
        weights.append((1 - alpha) ** 2 / (2 * variance * alpha * (1 - bar)))
    return (weights[0], *weights)
