"""Denoisers whose gates break their promise, and adapters that tap gates and break theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from good_denoiser import PatchContext, PatchNet
from low_cache import EveryOther, Given
from torch import Tensor

from ldmkit import Frame, Tap


class NeverAsks(PatchNet):
    """Calls its gate as a port."""

    def deep(self, h: Tensor, context: PatchContext, frame: Frame) -> Tensor:
        return self.gate(self.attended(h, context, frame), frame)


class AsksInVain(PatchNet):
    """Computes whatever the answer is."""

    def deep(self, h: Tensor, context: PatchContext, frame: Frame) -> Tensor:
        self.gate.skip(frame)
        return self.gate(self.attended(h, context, frame), frame)


class RoundsTheStored(PatchNet):
    def deep(self, h: Tensor, context: PatchContext, frame: Frame) -> Tensor:
        stored = self.gate.skip(frame)
        return super().deep(h, context, frame) if stored is None else stored.half().to(h.dtype)


class AsksTwice(PatchNet):
    """One gate for two values of one call: a cache would give the second for both."""

    def deep(self, h: Tensor, context: PatchContext, frame: Frame) -> Tensor:
        return super().deep(super().deep(h, context, frame), context, frame)


GATES = [NeverAsks, AsksInVain, RoundsTheStored, AsksTwice]


@dataclass(frozen=True)
class OnTheTap(Given):
    """Keeps the value for good."""

    def memory(self, frame: Frame) -> dict[Any, Any]:
        return KEPT


KEPT: dict[Any, Any] = {}


class Remembers(EveryOther):
    """A run goes on where the last one ended."""

    def taps(self, name: str) -> Mapping[str, Tap]:
        return {"deep.0": OnTheTap(name)}


class Astray(EveryOther):
    """At a port that is no gate."""

    def taps(self, name: str) -> Mapping[str, Tap]:
        return {"mid": Given(name)}


CACHES = [Remembers, Astray]
