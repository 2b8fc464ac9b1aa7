"""Adapters that break one promise each."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from broken_gates import CACHES
from broken_modules import module_faults
from good_adapter import Nudge, NudgeState, Shift
from low_rank import LowRank
from torch import Tensor, nn

from ldmkit import Context, Example, Frame, Fusable, Slot, Tap


class NoHost(Nudge):
    examples = (Example(denoiser={"type": "no-such-denoiser"}),)


class HostOfAnotherConfig(Nudge):
    examples = (Example(denoiser={"type": "unet", "config": {"width": 8}}),)


class DottedSlot(Nudge):
    def __init__(self, config: Any = None):
        super().__init__(config)
        self.slots = {"a.vector": Slot("vector", 3)}


class MaybeDrops(Nudge):
    def drops(self, slot: str) -> Any:
        return None


class OtherPort(Nudge):
    def taps(self, name: str) -> Mapping[str, Tap]:
        return {**super().taps(name), "skip.9": Shift(name)}


class NewTaps(Nudge):
    """Makes taps that are equal to no others."""

    def taps(self, name: str) -> Mapping[str, Tap]:
        mid = Shift(name)
        return {**super().taps(name), "mid": lambda value, frame: mid(value, frame)}


class TapsOfTheInstance(Nudge):
    """Its tuned copies have other taps."""

    def taps(self, name: str) -> Mapping[str, Tap]:
        return {**super().taps(name), "mid": _Bound(name, id(self))}


@dataclass(frozen=True)
class _Bound(Shift):
    owner: int


class NamelessTaps(Nudge):
    def taps(self, name: str) -> Mapping[str, Tap]:
        return super().taps("nudge")


class NotZero(Nudge):
    def __init__(self, config: Any = None):
        super().__init__(config)
        nn.init.normal_(self.up, std=1e-3)


class Rounding(Nudge):
    """Adds nothing, but not bit for bit."""

    def taps(self, name: str) -> Mapping[str, Tap]:
        return {**super().taps(name), "mid": _Scaling(name)}


@dataclass(frozen=True)
class _Scaling(Shift):
    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        return super().__call__(value / 3 * 3, frame)


class Idle(Nudge):
    def prepare(self, context: Context, name: str) -> Any:
        return None


class IgnoresSlot(Nudge):
    def prepare(self, context: Context, name: str) -> NudgeState:
        return replace(super().prepare(context, name), shift=None)


class OtherSlotName(Nudge):
    """Reads its slot by a name that nobody fills."""

    def prepare(self, context: Context, name: str) -> NudgeState:
        return super().prepare(context, "nudge")


class Demands(Nudge):
    def prepare(self, context: Context, name: str) -> NudgeState:
        assert context.signals[f"{name}.vector"]
        return super().prepare(context, name)


def _later(value: Tensor, frame: Frame) -> Tensor:
    return value * 1.5


class EveryRow(Nudge):
    """Acts on the null as on any other vector."""

    def prepare(self, context: Context, name: str) -> NudgeState:
        context.present = {}
        return super().prepare(context, name)


class OffWhereDropped(Nudge):
    """Says that its null acts, and looks at `present` all the same."""

    def has_null(self, slot: str) -> bool:
        return True


class AllOrNothing(Nudge):
    """Stays out of the whole batch where one row is without a vector."""

    def prepare(self, context: Context, name: str) -> NudgeState:
        state = super().prepare(context, name)
        present = context.present.get(f"{name}.vector", torch.ones(1))
        return state if bool(present.all()) else replace(state, shift=None)


class Restless(Nudge):
    """Acts in runs that know nothing of it."""

    def taps(self, name: str) -> Mapping[str, Tap]:
        return {**super().taps(name), "mid": _Always(name)}


@dataclass(frozen=True)
class _Always(Shift):
    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        return super().__call__(value, frame) + 0.01


class EntryExpected(Nudge):
    def taps(self, name: str) -> Mapping[str, Tap]:
        return {**super().taps(name), "mid": _Expecting(name)}


@dataclass(frozen=True)
class _Expecting(Shift):
    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        assert frame.context.adapters[self.name]
        return super().__call__(value, frame)


class LeavesATap(Nudge):
    def prepare(self, context: Context, name: str) -> NudgeState:
        host = sys._getframe(1).f_locals["host"]
        host.ports["skip.0"].taps = (_later,)
        return super().prepare(context, name)


class Patches(Nudge):
    """Goes past the ports: writes to the denoiser's weights."""

    def prepare(self, context: Context, name: str) -> NudgeState:
        host = sys._getframe(1).f_locals["host"]
        with torch.no_grad():
            host.conv_in.weight.add_(0.1)
        return super().prepare(context, name)


class Thaws(Nudge):
    def prepare(self, context: Context, name: str) -> NudgeState:
        sys._getframe(1).f_locals["host"].requires_grad_(True)
        return super().prepare(context, name)


class OneState(Nudge):
    """Keeps the state of all adapters of its class under one name."""

    def taps(self, name: str) -> Mapping[str, Tap]:
        return {"mid": _Shared(name)}

    def prepare(self, context: Context, name: str) -> NudgeState:
        state = super().prepare(context, name)
        context.adapters["shared"] = state
        return state


@dataclass(frozen=True)
class _Shared(Shift):
    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        shift = frame.context.adapters["shared"].shift
        if shift is None or "done" in frame.scratch:
            return value
        frame.scratch["done"] = True
        return value + shift


class OnTheAdapter(Nudge):
    """Keeps what `prepare` computed on itself."""

    kept: list[Any]

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.kept = []

    def prepare(self, context: Context, name: str) -> Any:
        self.kept.append(super().prepare(context, name))
        return _Latest(self.kept)


class _Latest:
    def __init__(self, kept: list[Any]):
        self.kept = kept

    def __getattr__(self, key: str) -> Any:
        return getattr(self.kept[-1], key)


class NeedsARun(Nudge):
    def prepare(self, context: Context, name: str) -> NudgeState:
        assert context.run is not None
        return super().prepare(context, name)


class OnlyInRuns(Nudge):
    def prepare(self, context: Context, name: str) -> Any:
        return None if context.run is None else super().prepare(context, name)


class Waits(Nudge):
    def taps(self, name: str) -> Mapping[str, Tap]:
        return {**super().taps(name), "mid": _Waiting(name)}


@dataclass(frozen=True)
class _Waiting(Shift):
    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        return super().__call__(value, frame) if frame.t.max() > 0 else value


class CopiesWeights(Nudge):
    def tuned(self, **changes: Any) -> Self:
        other = type(self)({**dict(self.config), **changes})
        other.load_state_dict(self.state_dict())
        return other


class TunesItself(Nudge):
    def tuned(self, **changes: Any) -> Self:
        other = super().tuned(**changes)
        self.config = self.Config.of(self.config.model_dump())
        return other


class TakesAnything(Nudge):
    def tuned(self, **changes: Any) -> Self:
        return super().tuned(**{key: value for key, value in changes.items() if key in type(self.config).model_fields})


class WrongDelta(LowRank):
    """Forgets its scale."""

    examples = (Example({"scale": 0.3}),)

    def delta(self, port: str, weight: Tensor) -> Tensor:
        down, up = self.matrices(port)
        return up @ down


class TurnedDelta(LowRank):
    def delta(self, port: str, weight: Tensor) -> Tensor:
        return super().delta(port, weight).T


class WritesWeight(LowRank):
    def delta(self, port: str, weight: Tensor) -> Tensor:
        return weight.add_(super().delta(port, weight)) * 0


class FusesMaps(Fusable, Nudge):
    """Shifts a map as well."""

    def delta(self, port: str, weight: Tensor) -> Tensor:
        return torch.zeros_like(weight)


BROKEN: dict[str, list[type[Any]]] = {
    "host": [NoHost, HostOfAnotherConfig],
    "slots": [DottedSlot, MaybeDrops],
    "taps": [OtherPort, NewTaps, TapsOfTheInstance, NamelessTaps],
    "identity": [NotZero, Rounding],
    "acts": [Idle],
    "slots-matter": [IgnoresSlot, OtherSlotName],
    "slots-absent": [Demands],
    "rows-absent": [EveryRow, AllOrNothing],
    "nulls": [OffWhereDropped],
    "no-entry": [Restless, EntryExpected],
    "detach": [LeavesATap, Patches],
    "frozen-denoiser": [Thaws, Patches],
    "two-at-once": [OneState],
    "interleaved": [OnTheAdapter],
    "without-run": [NeedsARun, OnlyInRuns],
    "no-waiting": [Waits],
    "caches": [*CACHES],
    "fused": [WrongDelta, TurnedDelta, WritesWeight, FusesMaps],
    "tuned": [CopiesWeights, TunesItself, TakesAnything],
    **{name: [cls] for name, cls in module_faults(Nudge, "shifted").items()},
}
"""Check -> parts that it must catch."""
