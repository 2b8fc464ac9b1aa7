"""A low-rank adapter as a third party would write it: against `ldmkit` alone, one file.

It adds scale * up @ down @ x to what linear layers yield, in the denoiser and in text towers, and can be fused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ldmkit import Adapter, Context, Example, Frame, Fusable, Tap, Value

PREFIX = "conditioners."


class LowRankConfig(Value):
    """Args:
    layers: port -> (inputs, outputs) of the layer; `conditioners.<name>.linear.<path>` for one of a conditioner.
    rank: of each update.
    scale: of all of them.
    """

    layers: Mapping[str, tuple[int, int]] = {"linear.mid.to_q": (16, 16), "linear.mid.to_k": (6, 16)}
    rank: int = 2
    scale: float = 1.0


@dataclass(frozen=True)
class AddUpdate:
    """A tap of the adapter called `name`, at a port."""

    name: str
    port: str

    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        adapter = frame.context.adapters.get(self.name)
        if adapter is None or self.port not in adapter.ports:  # another pipeline's adapter of this name
            return value
        down, up = adapter.matrices(self.port)
        added: Tensor = (frame.scratch["input"] @ down.T) @ up.T
        return value + adapter.config.scale * added


class LowRank(Fusable, Adapter):
    """Updates of rank `rank`; a new one changes nothing. State-dict names: down.<i>, up.<i>, in the order of ports."""

    api: ClassVar[int] = 1
    Config = LowRankConfig
    config: LowRankConfig
    examples = (Example(), Example({"scale": 0.3, "rank": 1}))

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.slots = {}
        self.ports = sorted(self.config.layers)
        shapes, rank = [self.config.layers[port] for port in self.ports], self.config.rank
        self.down = nn.ParameterList(nn.Parameter(torch.randn(rank, inputs) / inputs**0.5) for inputs, _ in shapes)
        self.up = nn.ParameterList(nn.Parameter(torch.zeros(outputs, rank)) for _, outputs in shapes)

    def matrices(self, port: str) -> tuple[Tensor, Tensor]:
        """(rank, inputs) and (outputs, rank)."""
        place = self.ports.index(port)
        return self.down[place], self.up[place]

    def taps(self, name: str) -> Mapping[str, Tap]:
        return {port: AddUpdate(name, port) for port in self.ports if not port.startswith(PREFIX)}

    def conditioner_taps(self, name: str) -> Mapping[str, Mapping[str, Tap]]:
        taps: dict[str, dict[str, Tap]] = {}
        for port in self.ports:
            if port.startswith(PREFIX):
                conditioner, _, own = port.removeprefix(PREFIX).partition(".")
                taps.setdefault(conditioner, {})[own] = AddUpdate(name, port)
        return taps

    def prepare(self, context: Context, name: str) -> LowRank:
        return self

    def delta(self, port: str, weight: Tensor) -> Tensor:
        down, up = self.matrices(port)
        return self.config.scale * (up @ down)
