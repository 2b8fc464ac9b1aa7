"""Caches that need no ports: estimates are derived from earlier ones, for any denoiser, guidance and process."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from ldmkit import Cache, Denoise, Process

Keep: TypeAlias = Literal["x0", "noise"]
"""What is reused: the x0 estimate, or the noise (x - x0) / sigma that it implies. Reusing noise suits deterministic
samplers: after new noise was drawn, the noise of an earlier state no longer applies."""


class _Kept:
    """The state of a run: the network's last estimate for each row, as x0 or as noise."""

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self.value: Tensor | None = None
        self.sigma = 0.0

    def put(self, x: Tensor, sigma: float, x0: Tensor) -> None:
        """Store an estimate of all rows."""
        self.value, self.sigma = (x0 if self.keep == "x0" else (x - x0) / sigma), sigma

    def estimate(self, x: Tensor, sigma: float) -> Tensor:
        """x0 for another state, from the stored estimate."""
        assert self.value is not None
        return self.value.clone() if self.keep == "x0" else x - sigma * self.value

    def old(self, x: Tensor, sigma: float) -> bool:
        """Whether the stored estimate does not apply: there is none yet, or noise was added since."""
        return self.value is None or sigma > self.sigma or self.value.shape != x.shape


class Interval(Cache):
    """Calls the network at every `interval`-th call, at a run's first call, and at its last noise level.

    A call at a higher level than the last one starts afresh. With Euler steps this equals taking fewer steps; it is a
    baseline for other caches.

    Args:
        interval: 1: all calls.
        keep: what is reused.
    """

    interval: int = Field(default=2, ge=1, le=10_000)
    keep: Keep = "x0"

    def around(self, denoise: Denoise, process: Process, sigmas: tuple[float, ...]) -> Denoise:
        kept, since, last = _Kept(self.keep), 0, sigmas[-2]

        def cached(x: Tensor, sigma: float) -> Tensor:
            nonlocal since
            if since % self.interval and sigma > last and not kept.old(x, sigma):
                since += 1
                return kept.estimate(x, sigma)
            x0 = denoise(x, sigma)
            kept.put(x, sigma, x0)
            since = 1
            return x0

        return denoise if self.interval == 1 else cached

    def evaluations(self, calls: int) -> int:
        return calls if self.interval == 1 else (calls - 1) // self.interval + 1 + ((calls - 1) % self.interval > 0)


class InputChange(Cache):
    """Calls the network when its input has changed enough since the last call.

    The change of a row from call to call is the mean |u - u'| over the mean |u'| of what the network reads, u = x times
    the process's scale; changes are put through a polynomial and added up until they reach `threshold`
    (Liu et al. 2024, arXiv:2411.19108, equations 4 to 6, with the network's input instead of its first block's;
    EasyCache, arXiv:2507.02860, uses the same sum). The first call and those at the last noise level are always made.
    Each row decides for itself: if one needs a call, the others keep their estimates, so that a picture is the same
    alone and in a batch.

    Args:
        threshold: 0: all calls.
        keep: what is reused.
        coefficients: of the polynomial, from the highest power down to the constant; a model's own are fitted.
    """

    threshold: float = Field(default=0.2, ge=0, le=1e6)
    keep: Keep = "x0"
    coefficients: tuple[float, ...] = Field(default=(1.0, 0.0), min_length=1, max_length=16)

    def around(self, denoise: Denoise, process: Process, sigmas: tuple[float, ...]) -> Denoise:
        kept, last = _Kept(self.keep), sigmas[-2]
        before: Tensor | None = None
        total: Tensor | None = None

        def cached(x: Tensor, sigma: float) -> Tensor:
            nonlocal before, total
            read = x * process.scalings(sigma)[2]
            change = None if before is None or before.shape != read.shape else _change(read, before)
            before = read
            if total is None or change is None or sigma <= last or kept.old(x, sigma):
                x0 = denoise(x, sigma)
                kept.put(x, sigma, x0)
                total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
                return x0
            total = total + self._weighed(change)
            wanted = total >= self.threshold
            if not bool(wanted.any()):
                return kept.estimate(x, sigma)
            return self._mixed(kept, wanted, x, sigma, denoise(x, sigma), total)

        return denoise if self.threshold == 0 else cached

    def _mixed(self, kept: _Kept, wanted: Tensor, x: Tensor, sigma: float, x0: Tensor, total: Tensor) -> Tensor:
        """The new estimate in the rows that needed it, which is then stored; the reused estimates in the others."""
        rows = wanted.view(-1, *[1] * (x.ndim - 1))
        given, old = torch.where(rows, x0, kept.estimate(x, sigma)), kept.value
        kept.put(x, sigma, x0)
        assert old is not None and kept.value is not None
        kept.value = torch.where(rows, kept.value, old)
        total.masked_fill_(wanted, 0.0)
        return given

    def _weighed(self, change: Tensor) -> Tensor:
        value = torch.zeros_like(change)
        for factor in self.coefficients:
            value = value * change + factor
        return value.clamp(min=0)


def _change(read: Tensor, before: Tensor) -> Tensor:
    """(B,) float64: mean |u - u'| over mean |u'|."""
    difference = (read - before).double().abs().flatten(1).mean(1)
    return difference / before.double().abs().flatten(1).mean(1).clamp(min=1e-30)
