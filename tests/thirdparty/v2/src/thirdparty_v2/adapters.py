"""Adapters: low-rank updates of linear layers that can be fused, a cache at a gate, a shift of a block's stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import ldmkit

PREFIX = "conditioners."


class LowRankConfig(ldmkit.Value):
    """Args:
    layers: port -> (inputs, outputs) of the layer; `conditioners.<name>.linear.<path>` for one of a conditioner.
    rank: of each update.
    """

    layers: Mapping[str, tuple[int, int]] = {"linear.query": (4, 4), "linear.key": (6, 4)}
    rank: int = 2


@dataclass(frozen=True)
class AddUpdate:
    """A tap of the adapter called `name`, at a port."""

    name: str
    port: str

    def __call__(self, value: Tensor, frame: ldmkit.Frame) -> Tensor:
        adapter = frame.context.adapters.get(self.name)
        if adapter is None or self.port not in adapter.tapped:  # another pipeline's adapter of this name
            return value
        down, up = adapter.matrices(self.port)
        added: Tensor = (frame.scratch["input"] @ down.T) @ up.T
        return value + added


class LowRank(ldmkit.Fusable, ldmkit.Adapter):
    """Updates up @ down @ x of what linear layers yield, in the denoiser and in text towers."""

    api = 1
    Config = LowRankConfig
    config: LowRankConfig
    examples = (
        ldmkit.Example(denoiser={"type": "v2-ladder", "config": {"width": 4}}),
        ldmkit.Example({"rank": 1}, denoiser={"type": "v2-ladder", "config": {"width": 4}}),
    )

    def __init__(self, config: LowRankConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.slots = {}
        self.tapped = sorted(self.config.layers)
        shapes, rank = [self.config.layers[port] for port in self.tapped], self.config.rank
        self.down = nn.ParameterList(nn.Parameter(torch.randn(rank, inputs) / inputs**0.5) for inputs, _ in shapes)
        self.up = nn.ParameterList(nn.Parameter(torch.zeros(outputs, rank)) for _, outputs in shapes)

    def matrices(self, port: str) -> tuple[Tensor, Tensor]:
        """(rank, inputs) and (outputs, rank)."""
        place = self.tapped.index(port)
        return self.down[place], self.up[place]

    def taps(self, name: str) -> Mapping[str, ldmkit.Tap]:
        return {port: AddUpdate(name, port) for port in self.tapped if not port.startswith(PREFIX)}

    def conditioner_taps(self, name: str) -> Mapping[str, Mapping[str, ldmkit.Tap]]:
        taps: dict[str, dict[str, ldmkit.Tap]] = {}
        for port in self.tapped:
            if port.startswith(PREFIX):
                conditioner, _, own = port.removeprefix(PREFIX).partition(".")
                taps.setdefault(conditioner, {})[own] = AddUpdate(name, port)
        return taps

    def prepare(self, context: ldmkit.Context, name: str) -> LowRank:
        return self

    def delta(self, port: str, weight: Tensor) -> Tensor:
        down, up = self.matrices(port)
        return up @ down


@dataclass(frozen=True)
class Stored:
    """A tap at a gate, for the adapter called `name`."""

    name: str

    def skip(self, frame: ldmkit.Frame) -> Tensor | None:
        """What the call before stored, once."""
        if self.name not in frame.context.adapters:
            return None
        value: Tensor | None = frame.context.memory.pop(self.name, None)
        return value

    def __call__(self, value: Tensor, frame: ldmkit.Frame) -> Tensor:
        if self.name in frame.context.adapters and frame.context.run is not None:
            frame.context.memory[self.name] = value
        return value


class EveryOther(ldmkit.Adapter):
    """At the gate `deep.0`: every other call takes the map of the call before. It has no weights."""

    api = 1
    examples = (ldmkit.Example(denoiser={"type": "v2-ladder", "config": {"width": 4}}),)

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.slots = {}

    def taps(self, name: str) -> Mapping[str, ldmkit.Tap]:
        return {"deep.0": Stored(name)}

    def prepare(self, context: ldmkit.Context, name: str) -> bool:
        return True


class ShiftConfig(ldmkit.Value):
    """Args: width of the stream; strength of the shift."""

    width: int = 4
    strength: float = 1.0


@dataclass(frozen=True)
class AddShift:
    """A tap at a block, for the adapter called `name`."""

    name: str

    def __call__(self, value: Tensor, frame: ldmkit.Frame) -> Tensor:
        shift = frame.context.adapters.get(self.name)
        return value if shift is None else value + shift.to(value)[:, None]


class Shift(ldmkit.Adapter):
    """Adds a learned projection of a number to the residual stream at `block.0`, in rows that have one."""

    api = 1
    Config = ShiftConfig
    config: ShiftConfig
    examples = (ldmkit.Example(denoiser={"type": "v2-ladder", "config": {"width": 4}}),)

    def __init__(self, config: ShiftConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.slots = {"level": ldmkit.Slot("vector", 1)}
        self.project = nn.Linear(1, self.config.width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def adds(self, name: str) -> Mapping[str, int]:
        return {"block.0": self.config.width}

    def taps(self, name: str) -> Mapping[str, ldmkit.Tap]:
        return {"block.0": AddShift(name)}

    def idle(self, run: ldmkit.Run) -> str | None:
        return "its strength is 0" if self.config.strength == 0 else None

    def prepare(self, context: ldmkit.Context, name: str) -> Tensor | None:
        level = context.signals.get(f"{name}.level")
        if not isinstance(level, ldmkit.Vector):
            return None
        shift: Tensor = self.project(level.value.to(self.dtype)) * self.config.strength
        present = context.present.get(f"{name}.level")
        return shift if present is None else torch.where(present[:, None], shift, 0.0)
