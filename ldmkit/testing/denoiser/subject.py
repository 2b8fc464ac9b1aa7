"""The subject of the checks of denoisers: a class, a configuration, and how the network is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.axes import frame_size
from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.ports import Tap
from ldmkit.contracts.signals import Plane, Signal, Slot, Tokens, Vector
from ldmkit.contracts.step import Context
from ldmkit.testing.batches import normal
from ldmkit.testing.checks import NotApplicable
from ldmkit.testing.modules import ROWS, ModuleSubject

TIMES = (1.0, 250.5, 900.0)
"""Times t, one per row, not all integers."""

FRAMES = 3
"""Length of each leading axis of latents with more than two axes."""

LENGTH = 5
"""Length of token sequences."""

Size = tuple[int, ...]


@dataclass(frozen=True)
class DenoiserSubject(ModuleSubject):
    """A denoiser and one configuration of it."""

    def given(self, part: Any) -> dict[str, Any]:
        return inputs(part, size_of(part))

    def outputs(self, part: Any, given: Mapping[str, Any]) -> tuple[Tensor, ...]:
        return (call(part, given),)


def size_of(part: Any) -> Size:
    """A size of latents, (..., h, w), that is not square, a multiple of 4, and at least `smallest`."""
    least = 4 * -(-max(int(part.smallest), 8) // 4)
    return with_axes(part, (least, least + 4))


def with_axes(part: Any, frame: tuple[int, int]) -> Size:
    """A size with `frame` as the last two axes, for as many axes as the latents have: `FRAMES` along leading ones."""
    count = int(part.latent_axes)
    whole = (*[FRAMES] * count, *frame)
    return whole[len(whole) - count :]


def inputs(part: Any, size: Size, rows: int = ROWS, seed: int = 0) -> dict[str, Any]:
    """x, t and signals for every slot."""
    x = normal(rows, part.channels, *size, like=part, seed=seed)
    times = torch.tensor([TIMES[(row + seed) % len(TIMES)] for row in range(rows)], device=part.device)
    return {"x": x, "t": times, "signals": signals_of(part.slots, part, size, rows, seed)}


def call(part: Any, given: Mapping[str, Any], sigma: float | None = None) -> Tensor:
    """The network's output for inputs, with a context prepared for this call."""
    out: Tensor = part(given["x"], given["t"], part.prepare(given["signals"]), sigma)
    return out


def signals_of(slots: Mapping[str, Slot], part: Any, size: Size, rows: int = ROWS, seed: int = 0) -> dict[str, Signal]:
    """A signal for every slot, with different values for each seed.

    Raises:
        NotApplicable: a slot takes residuals, whose shapes only the denoiser knows.
    """
    return {name: signal_of(slot, part, size, rows, seed + 10 * k) for k, (name, slot) in enumerate(slots.items())}


def signal_of(slot: Slot, part: Any, size: Size, rows: int, seed: int) -> Signal:
    """A signal of a slot's kind and dim. Vectors of dim 1 hold small integers, since they may mean classes."""
    if slot.kind == "tokens":
        mask = torch.ones(rows, LENGTH, dtype=torch.bool, device=part.device)
        mask[0, -2:] = False
        return Tokens(normal(rows, LENGTH, slot.dim, like=part, seed=seed + 1), mask)
    if slot.kind == "vector" and slot.dim == 1:
        return Vector(((torch.arange(rows, device=part.device) + seed) % 3)[:, None].to(part.dtype))
    if slot.kind == "vector":
        return Vector(normal(rows, slot.dim, like=part, seed=seed + 1))
    if slot.kind == "plane":
        return Plane(normal(rows, slot.dim, *frame_size(size), like=part, seed=seed + 1))
    raise NotApplicable(f"the kit cannot make {slot.kind}, whose shapes only the part knows")


class Recorder:
    """A tap that records its calls, and returns the value unchanged.

    Args:
        seen: list to which (name, value, frame) of every call is appended.
    """

    def __init__(self, name: str, seen: list[tuple[str, Tensor, Any]]):
        self.name, self.seen = name, seen

    def __call__(self, value: Tensor, frame: Any) -> Tensor:
        self.seen.append((self.name, value, frame))
        return value


def jolt(value: Tensor, frame: Any) -> Tensor:
    """A tap that adds noise of half the value's spread: unlike a constant, later layers cannot absorb it."""
    spread = 0.5 * value.detach().std() + 0.1
    return value + spread * normal(*value.shape, seed=7).to(value)


def taps_of(part: Denoiser, tap: Tap) -> dict[str, Tap]:
    """One tap for every port."""
    return dict.fromkeys(part.ports, tap)


@dataclass
class Probe:
    """State of a fictitious adapter, stored in `Context.adapters`; it knows its window of the latents."""

    window: tuple[int, ...] = ()

    def crop(self, top: int, left: int, height: int, width: int) -> Probe:
        """The state for a window."""
        return Probe((top, left, height, width))


def with_probe(context: Context) -> Context:
    """The context with the state of an adapter named `probe`."""
    context.adapters["probe"] = Probe()
    return context
