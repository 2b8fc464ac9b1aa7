"""A small network over pictures with gates, ports of blocks and of linear layers, and a learned variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

import ldmkit


class LadderConfig(ldmkit.Value):
    """Args: channels of latents; width inside; dims of the slots words, mood and map; variance: 2 C channels out."""

    channels: int = Field(default=3, ge=1)
    width: int = Field(default=8, ge=2, multiple_of=2)
    words: int = Field(default=6, ge=1)
    mood: int = Field(default=4, ge=1)
    map: int = Field(default=2, ge=1)
    variance: bool = False


@dataclass
class Prepared(ldmkit.Context):
    """The words' keys (B,L,width), the mood (B,width), the map (B,map,h,w)."""

    keys: Tensor | None = None
    mask: Tensor | None = None
    mood: Tensor | None = None
    map: Tensor | None = None


class Ladder(ldmkit.Denoiser):
    """A convolution, one block at half the resolution that looks at the words, a convolution.

    Ports: `linear.<layer>`, also of the projection in `prepare`; `block.0`, the residual stream (B,L,width); the gate
    `deep.0`, which guards all below the full resolution; `mid`.
    """

    api = 1
    Config = LadderConfig
    config: LadderConfig
    examples = (ldmkit.Example({"width": 4}), ldmkit.Example({"channels": 2, "variance": True}))

    def __init__(self, config: LadderConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        c = self.config
        self.channels = c.channels
        self.slots = {
            "words": ldmkit.Slot("tokens", c.words, "length"),
            "mood": ldmkit.Slot("vector", c.mood, "sum"),
            "map": ldmkit.Slot("plane", c.map, "feature"),
        }
        self.enter = nn.Conv2d(c.channels + c.map, c.width, 3, padding=1)
        self.time, self.mood = nn.Linear(c.width, c.width), nn.Linear(c.mood, c.width)
        self.key, self.query = ldmkit.PortedLinear(c.words, c.width), ldmkit.PortedLinear(c.width, c.width)
        self.leave = nn.Conv2d(c.width, c.channels * (2 if c.variance else 1), 3, padding=1)
        self.gate, self.block, self.mid = ldmkit.Gate(), ldmkit.Port(c.width), ldmkit.Port(c.width)
        self.ports = {"deep.0": self.gate, "block.0": self.block, "mid": self.mid, **ldmkit.linear_ports(self)}

    def prepare(self, signals: Mapping[str, ldmkit.Signal]) -> Prepared:
        """Project what no step changes."""
        made = Prepared(signals)
        mood, plane = signals.get("mood"), signals.get("map")
        if isinstance(mood, ldmkit.Vector):
            made.mood = self.mood(mood.value)
        if isinstance(plane, ldmkit.Plane):
            made.map = plane.value
        self._project(made)
        return made

    def adapted(self, context: ldmkit.Context) -> ldmkit.Context:
        """The words once more, now that adapters at `linear.key` act."""
        assert isinstance(context, Prepared)
        self._project(context)
        return context

    def forward(self, x: Tensor, t: Tensor, context: ldmkit.Context, sigma: float | None = None) -> Tensor:
        """F of the scaled latents."""
        assert isinstance(context, Prepared)
        frame = ldmkit.Frame(x, t, context, sigma)
        plane = context.map if context.map is not None else x.new_zeros(x.shape[0], self.config.map, *x.shape[2:])
        row = self.time(self._waves(t).to(x.dtype))
        if context.mood is not None:
            row = row + context.mood
        h = self.enter(torch.cat([x, plane], dim=1)) + row[:, :, None, None]
        h = h + self.gate.around(lambda: self._below(h, context, frame), frame)
        out: Tensor = self.leave(nn.functional.silu(self.mid(h, frame)))
        return out

    def _below(self, h: Tensor, context: Prepared, frame: ldmkit.Frame) -> Tensor:
        """What the block adds, at the resolution of h."""
        small = nn.functional.adaptive_avg_pool2d(nn.functional.silu(h), [max(1, side // 2) for side in h.shape[2:]])
        stream = self.block(small.flatten(2).transpose(1, 2), frame)
        if context.keys is not None:
            mask = None if context.mask is None else context.mask[:, None]
            queries = self.query(stream, frame)
            stream = stream + nn.functional.scaled_dot_product_attention(queries, context.keys, context.keys, mask)
        inner = stream.transpose(1, 2).reshape(small.shape)
        return nn.functional.interpolate(inner, size=h.shape[2:], mode="nearest")

    def _project(self, context: Prepared) -> None:
        words = context.signals.get("words")
        if isinstance(words, ldmkit.Tokens):
            nothing = words.value.new_empty(0)
            context.keys = self.key(words.value, ldmkit.Frame(nothing, nothing, context))
            context.mask = words.mask

    def _waves(self, t: Tensor) -> Tensor:
        rates = torch.exp(-torch.arange(self.config.width // 2, device=t.device))
        angles = t.float()[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], dim=1)
