"""A map that shifts the middle of any denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

import ldmkit


class TintConfig(ldmkit.Value):
    """Args: channels of the map; width of the port `mid`; strength."""

    channels: int = Field(default=2, ge=1)
    width: int = Field(default=8, ge=1)
    strength: float = Field(default=1.0, ge=0)


class Tint(ldmkit.Adapter):
    """Adds a convolution of its plane to the port `mid`; the convolution starts at zero."""

    api = 1
    Config = TintConfig
    config: TintConfig
    examples = (ldmkit.Example({"channels": 2, "width": 4}, denoiser={"type": "v1-mixer", "config": {"width": 4}}),)

    def __init__(self, config: TintConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.slots = {"map": ldmkit.Slot("plane", self.config.channels)}
        self.project = nn.Conv2d(self.config.channels, self.config.width, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def taps(self, name: str) -> Mapping[str, ldmkit.Tap]:
        return {"mid": Shift(name, self.config.strength)}

    def prepare(self, context: ldmkit.Context, name: str) -> Tensor | None:
        """The shift (B,width,h,w), once per run."""
        plane = context.signals.get(f"{name}.map")
        if not isinstance(plane, ldmkit.Plane):
            return None
        shift: Tensor = self.project(plane.value)
        present = context.present.get(f"{name}.map")
        return shift if present is None else shift * present.to(shift.dtype).view(-1, 1, 1, 1)


class Shift:
    """The tap: two of one name and strength are equal, so that a pipeline attaches it once."""

    def __init__(self, name: str, strength: float) -> None:
        self.key = (name, strength)

    def __call__(self, value: Tensor, frame: Any, /) -> Tensor:
        name, strength = self.key
        shift = frame.context.adapters.get(name)
        if shift is None:
            return value
        shift = nn.functional.interpolate(shift, size=value.shape[2:])
        return torch.add(value, shift.to(value.dtype), alpha=strength)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shift) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)
