"""The contract of processes: the forward process, and what the network predicts."""

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
    """The forward process and what F predicts: D(x, sigma) = skip * x + out * F(scale * x, time)."""

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
        """What the network reads for a noise level."""

    def time_between(self, sigma: float) -> float:
        """What the network reads for a noise level that a sampler visits between those of the grid."""
        return self.time(sigma)

    @property
    def timesteps(self) -> int | None:
        """T where the schedule is a table over the integers 0 ... T-1; None where time is continuous."""
        return None

    def sigma_of_time(self, time: float) -> float:
        """Inverse of `time`: the noise level for what the network reads. Optional; grids over timesteps need it."""
        raise CompositionError("no-timesteps", f"{type(self).__name__} has no noise level for a given time")

    @abstractmethod
    def sigma(self, u: float) -> float:
        """Noise level at quantile u in [0, 1] of the training distribution; increasing in u."""

    @abstractmethod
    def scalings(self, sigma: float) -> tuple[float, float, float]:
        """(skip, out, scale) at a noise level."""

    def alpha(self, sigma: float) -> float:
        """Factor between this frame and the process's own: VP sqrt(alpha_bar) = (1+sigma^2)^-1/2, flow 1/(1+sigma)."""
        return 1.0

    def prior(self, noise: Tensor, sigma: float) -> Tensor:
        """The state to start a run from: unit noise in the process's own frame, brought to x = x0 + sigma * n."""
        return noise * max(1.0 / self.alpha(sigma), sigma)

    def settled(self, x: Tensor, sigma: float) -> Tensor:
        """The latents that a run's last state x = x0 + sigma * n stands for: by default in the process's own frame."""
        return x * self.alpha(sigma)

    def target(self, x0: Tensor, noise: Tensor, sigma: Sequence[float]) -> Tensor:
        """What F should return for x = x0 + sigma * n, one sigma a row: the F at which D equals x0."""
        rows = [self.scalings(s) for s in sigma]
        on_x0 = [(1 - skip) / out for skip, out, _ in rows]
        on_noise = [-skip * s / out for (skip, out, _), s in zip(rows, sigma, strict=True)]
        return column(on_x0, x0) * x0 + column(on_noise, x0) * noise


def column(values: Sequence[float], like: Tensor) -> Tensor:
    """One number a row, shaped to multiply a batch (B, ...)."""
    if not all(math.isfinite(v) for v in values):
        raise CompositionError("not-finite", f"a schedule value is not finite: {list(values)}")
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, *[1] * (like.ndim - 1))
