"""A small network with a slot of every kind that conditioners make, and three ports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

import ldmkit


class MixerConfig(ldmkit.Value):
    """Args: channels of latents; width inside; dims of the slots words, mood and map."""

    channels: int = Field(default=4, ge=1)
    width: int = Field(default=8, ge=2, multiple_of=2)
    words: int = Field(default=8, ge=1)
    mood: int = Field(default=4, ge=1)
    map: int = Field(default=2, ge=1)


@dataclass
class Prepared(ldmkit.Context):
    """Keys and values of the words (B,L,width), the mood (B,width), the map (B,map,h,w)."""

    keys: Tensor | None = None
    values: Tensor | None = None
    mask: Tensor | None = None
    mood: Tensor | None = None
    map: Tensor | None = None


class Mixer(ldmkit.Denoiser):
    """One block: a convolution, a look at the words, a convolution."""

    api = 1
    Config = MixerConfig
    config: MixerConfig
    examples = (ldmkit.Example({"channels": 3, "width": 4, "words": 6, "mood": 3, "map": 2}),)

    def __init__(self, config: MixerConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        c = self.config
        self.channels = c.channels
        self.slots = {
            "words": ldmkit.Slot("tokens", c.words, "length"),
            "mood": ldmkit.Slot("vector", c.mood, "sum"),
            "map": ldmkit.Slot("plane", c.map, "feature"),
        }
        self.port_input, self.port_skip, self.port_mid = ldmkit.Port(), ldmkit.Port(), ldmkit.Port()
        self.ports = {"input": self.port_input, "skip.0": self.port_skip, "mid": self.port_mid}
        self.enter = nn.Conv2d(c.channels + c.map, c.width, 3, padding=1)
        self.time = nn.Linear(c.width, c.width)
        self.mood = nn.Linear(c.mood, c.width)
        self.inner = nn.Conv2d(c.width, c.width, 3, padding=1)
        self.query = nn.Linear(c.width, c.width)
        self.key = nn.Linear(c.words, c.width)
        self.value = nn.Linear(c.words, c.width)
        self.leave = nn.Conv2d(c.width, c.channels, 3, padding=1)

    def prepare(self, signals: Mapping[str, ldmkit.Signal]) -> Prepared:
        """Project what no step changes."""
        made = Prepared(signals)
        words, mood, plane = signals.get("words"), signals.get("mood"), signals.get("map")
        if isinstance(words, ldmkit.Tokens):
            made.keys, made.values, made.mask = self.key(words.value), self.value(words.value), words.mask
        if isinstance(mood, ldmkit.Vector):
            made.mood = self.mood(mood.value)
        if isinstance(plane, ldmkit.Plane):
            made.map = plane.value
        return made

    def forward(self, x: Tensor, t: Tensor, context: ldmkit.Context, sigma: float | None = None) -> Tensor:
        """F of the scaled latents."""
        assert isinstance(context, Prepared)
        frame = ldmkit.Frame(x, t, context, sigma)
        plane = context.map
        if plane is None:
            plane = x.new_zeros(x.shape[0], self.config.map, *x.shape[2:])
        h = self.port_input(self.enter(torch.cat([x, plane], dim=1)), frame)
        row = self.time(self._waves(t).to(x.dtype))
        if context.mood is not None:
            row = row + context.mood
        h = h + row[:, :, None, None]
        skip = self.port_skip(h, frame)
        h = self.inner(nn.functional.silu(h))
        if context.keys is not None and context.values is not None:
            h = h + self._look(h, context.keys, context.values, context.mask)
        h = self.port_mid(h, frame)
        return self.leave(nn.functional.silu(h + skip))

    def _waves(self, t: Tensor) -> Tensor:
        half = self.config.width // 2
        steps = torch.arange(half, device=t.device, dtype=torch.float32)
        angles = t.float()[:, None] * torch.exp(-math.log(1000.0) * steps / half)
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def _look(self, h: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        places = self.query(h.flatten(2).transpose(1, 2))
        scores = places @ keys.transpose(1, 2) / math.sqrt(keys.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, :], torch.finfo(scores.dtype).min)
        seen = scores.softmax(-1) @ values
        return seen.transpose(1, 2).reshape(h.shape)
