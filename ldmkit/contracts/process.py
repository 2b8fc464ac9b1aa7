"""The contract of processes: the forward process and the network's prediction target."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ldmkit.contracts.example import Example
from ldmkit.contracts.value import Value
from ldmkit.errors import CompositionError


class Process(Value, ABC):
    """The forward process and the parameterisation of F: D(x, sigma) = skip * x + out * F(scale * x, time)."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]  # both as `Part` has them

    @property
    @abstractmethod
    def sigma_min(self) -> float:
        """Smallest noise level, finite and > 0."""

    @property
    @abstractmethod
    def sigma_max(self) -> float:
        """Largest noise level, finite; flow and zero-terminal-SNR schedules clamp."""

    @abstractmethod
    def time(self, sigma: float) -> float:
        """The time input of the network for a noise level."""

    def time_between(self, sigma: float) -> float:
        """The time input of the network for a noise level that a sampler visits between those of the grid."""
        return self.time(sigma)

    @property
    def timesteps(self) -> int | None:
        """T if the schedule is a table over the integers 0 ... T-1; None if time is continuous."""
        return None

    def sigma_of_time(self, time: float) -> float:
        """Inverse of `time`: the noise level for a time input. Optional; grids over timesteps need it."""
        raise CompositionError("no-timesteps", f"{type(self).__name__} cannot map a time to a noise level")

    @abstractmethod
    def sigma(self, u: float) -> float:
        """Noise level at quantile u in [0, 1] of the training distribution; increasing in u."""

    @abstractmethod
    def scalings(self, sigma: float) -> tuple[float, float, float]:
        """(skip, out, scale) at a noise level."""

    def alpha(self, sigma: float) -> float:
        """Scale from x = x0 + sigma * n to the process's own state: VP sqrt(alpha_bar) = (1+sigma^2)^-1/2, flow
        1/(1+sigma), VE 1."""
        return 1.0

    def prior(self, noise: Tensor, sigma: float) -> Tensor:
        """The initial state of a run: unit noise in the process's own scaling, converted to x = x0 + sigma * n."""
        return noise * max(1.0 / self.alpha(sigma), sigma)

    def settled(self, x: Tensor, sigma: float) -> Tensor:
        """Latents from the final state x = x0 + sigma * n of a run; by default rescaled by `alpha`."""
        return x * self.alpha(sigma)

    def target(self, x0: Tensor, noise: Tensor, sigma: Sequence[float]) -> Tensor:
        """Training target of F for x = x0 + sigma * n, one sigma per row: the value of F for which D equals x0."""
        rows = [self.scalings(s) for s in sigma]
        on_x0 = [(1 - skip) / out for skip, out, _ in rows]
        on_noise = [-skip * s / out for (skip, out, _), s in zip(rows, sigma, strict=True)]
        return column(on_x0, x0) * x0 + column(on_noise, x0) * noise


def column(values: Sequence[float], like: Tensor) -> Tensor:
    """One number per row, shaped to broadcast over a batch (B, ...)."""
    if not all(math.isfinite(v) for v in values):
        raise CompositionError("not-finite", f"a schedule value is not finite: {list(values)}")
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, *[1] * (like.ndim - 1))
