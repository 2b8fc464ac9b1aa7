"""A modality: the colours that the picture should have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

import ldmkit


class PaletteConfig(ldmkit.Value):
    """Args: dim of a token."""

    dim: int = Field(default=8, ge=1)


class Palette(ldmkit.Conditioner):
    """One to four colours `#rrggbb`, one token each."""

    api = 1
    Config = PaletteConfig
    config: PaletteConfig
    Input = Annotated[list[Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]], Field(min_length=1, max_length=4)]
    kind = "tokens"
    examples = (ldmkit.Example({"dim": 6}, (["#ff0000"], ["#00ff00", "#102030"], ["#ffffff"] * 4)),)

    def __init__(self, config: PaletteConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.dim = self.config.dim
        self.project = nn.Linear(3, self.dim)

    def forward(self, inputs: list[list[str]]) -> ldmkit.Tokens:
        """Shorter palettes are padded, and the mask leaves the padding out."""
        longest = max(len(colours) for colours in inputs)
        weight = self.project.weight
        value = torch.zeros(len(inputs), longest, 3, dtype=weight.dtype, device=weight.device)
        mask = torch.zeros(len(inputs), longest, dtype=torch.bool, device=weight.device)
        for row, colours in enumerate(inputs):
            shades = [[int(colour[i : i + 2], 16) / 127.5 - 1 for i in (1, 3, 5)] for colour in colours]
            value[row, : len(colours)] = torch.tensor(shades, dtype=weight.dtype, device=weight.device)
            mask[row, : len(colours)] = True
        return ldmkit.Tokens(self.project(value), mask)

    def example(self, size: tuple[int, int]) -> list[str]:
        """Grey."""
        return ["#808080"]
