"""An adapter of one's own, written against `ldmkit` alone: a low-rank update of a linear layer, and a shift of maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ldmkit import Adapter, Context, Example, Frame, Slot, Tap, Value


class NudgeConfig(Value):
    """Args:
    dim: of the vector.
    width: channels at `mid` and of the linear layer.
    scale: of all that is added.
    """

    dim: int = 3
    width: int = 16
    scale: float = 1.0


@dataclass(frozen=True)
class NudgeState:
    """Of a run: the shift of the maps (B, width, 1, 1), or None without a vector; and the low-rank update."""

    down: Tensor
    up: Tensor
    shift: Tensor | None


@dataclass(frozen=True)
class Shift:
    """Tap at `mid`."""

    name: str

    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        state = frame.context.adapters.get(self.name)
        return value if state is None or state.shift is None else value + state.shift


@dataclass(frozen=True)
class LowRank:
    """Tap at `linear.mid.to_q`."""

    name: str

    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        state = frame.context.adapters.get(self.name)
        return value if state is None else value + frame.scratch["input"] @ state.down.T @ state.up.T


class Nudge(Adapter):
    """Slot `vector`."""

    Config = NudgeConfig
    config: NudgeConfig
    examples = (Example(), Example({"dim": 1, "scale": 0.3}))

    def __init__(self, config: NudgeConfig | None = None):
        super().__init__(config)
        width = self.config.width
        self.slots: Mapping[str, Slot] = {"vector": Slot("vector", self.config.dim)}
        self.down = nn.Parameter(torch.randn(2, width))
        self.up = nn.Parameter(torch.zeros(width, 2))
        self.shift = nn.Linear(self.config.dim, width)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def taps(self, name: str) -> Mapping[str, Tap]:
        return {"mid": Shift(name), "linear.mid.to_q": LowRank(name)}

    def prepare(self, context: Context, name: str) -> NudgeState:
        state = NudgeState(self.down, self.up * self.config.scale, None)
        signal: Any = context.signals.get(f"{name}.vector")
        if signal is None:
            return state
        shift = self.shifted(signal.value)[:, :, None, None]
        present = context.present.get(f"{name}.vector")
        return replace(state, shift=shift if present is None else shift * present.view(-1, 1, 1, 1))

    def shifted(self, vector: Tensor) -> Tensor:
        """What is added at every place, (B, width)."""
        return self.config.scale * self.shift(vector)
