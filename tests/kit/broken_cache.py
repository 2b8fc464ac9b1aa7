"""Caches that break one promise each."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ldmkit import Cache, Denoise, Process


class Halves(Cache):
    """Every other call, as a third party would write it."""

    def around(self, denoise: Denoise, process: Process, sigmas: tuple[float, ...]) -> Denoise:
        kept: list[tuple[Tensor, float]] = []

        def cached(x: Tensor, sigma: float) -> Tensor:
            if kept and sigma <= kept[0][1]:
                return kept.pop()[0].clone()
            kept[:] = [(denoise(x, sigma), sigma)]
            return kept[0][0]

        return cached


class SharesMemory(Halves):
    """Gives the estimate that the sampler has already."""

    def around(self, denoise: Denoise, process: Process, sigmas: tuple[float, ...]) -> Denoise:
        inner, last = super().around(denoise, process, sigmas), torch.zeros(3, 2, 4, 4)

        def cached(x: Tensor, sigma: float) -> Tensor:
            return last[: len(x)].copy_(inner(x, sigma))

        return cached


class WritesState(Halves):
    def around(self, denoise: Denoise, process: Process, sigmas: tuple[float, ...]) -> Denoise:
        inner = super().around(denoise, process, sigmas)
        return lambda x, sigma: inner(x.mul_(1.01), sigma)


class BeginsEmpty(Halves):
    """Takes zeros for the first estimate."""

    def around(self, denoise: Denoise, process: Process, sigmas: tuple[float, ...]) -> Denoise:
        inner, calls = super().around(denoise, process, sigmas), []

        def cached(x: Tensor, sigma: float) -> Tensor:
            calls.append(sigma)
            return 0 * x if len(calls) == 1 else inner(x, sigma)

        return cached


class NeverAnew(Cache):
    """Every other call, wherever the noise level goes."""

    def around(self, denoise: Denoise, process: Process, sigmas: tuple[float, ...]) -> Denoise:
        kept: list[Tensor] = []

        def cached(x: Tensor, sigma: float) -> Tensor:
            if len(kept) % 3:
                kept.append(kept[-1].clone())
            else:
                kept.append(denoise(x, sigma))
            return kept[-1]

        return cached


class OnTheClass(Halves):
    """Keeps the estimate where all runs find it."""

    kept: ClassVar[list[Any]] = []

    def around(self, denoise: Denoise, process: Process, sigmas: tuple[float, ...]) -> Denoise:
        def cached(x: Tensor, sigma: float) -> Tensor:
            if self.kept and sigma <= self.kept[0][1] and self.kept[0][0].shape == x.shape:
                return self.kept.pop()[0].clone()
            self.kept[:] = [(denoise(x, sigma), sigma)]
            return self.kept[0][0]

        return cached


class ByTheBatch(Cache):
    """Decides by the mean over the batch."""

    def around(self, denoise: Denoise, process: Process, sigmas: tuple[float, ...]) -> Denoise:
        kept: list[tuple[Tensor, Tensor, float]] = []

        def cached(x: Tensor, sigma: float) -> Tensor:
            if kept and sigma <= kept[0][2] and float((x - kept[0][1]).abs().mean() / kept[0][1].abs().mean()) < 0.45:
                return kept[0][0].clone()
            kept[:] = [(denoise(x, sigma), x.clone(), sigma)]
            return kept[0][0].clone()

        return cached


class CallsTwice(Cache):
    def around(self, denoise: Denoise, process: Process, sigmas: tuple[float, ...]) -> Denoise:
        return lambda x, sigma: (denoise(x, sigma) + denoise(x, sigma)) / 2


class Boasts(Halves):
    def evaluations(self, calls: int) -> int:
        return calls // 2


BROKEN: dict[str, list[type[Any]]] = {
    "estimates": [SharesMemory, WritesState],
    "first-call": [BeginsEmpty, NeverAnew],
    "runs-apart": [OnTheClass],
    "rows-apart": [ByTheBatch],
    "saves": [CallsTwice, Boasts],
}
