"""A plane that does not tell its own size: how light the left and the right half should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

import ldmkit

Light = Annotated[float, Field(ge=0, le=1)]


class HalvesConfig(ldmkit.Value):
    """Args: contrast of the plane."""

    contrast: float = Field(default=1.0, gt=0)


class Halves(ldmkit.Conditioner):
    """[left, right] as a plane (B,2,h,w): how light, and in which half."""

    api = 1
    Config = HalvesConfig
    config: HalvesConfig
    Input = tuple[Light, Light]
    kind = "plane"
    dim = 2
    examples = (ldmkit.Example(inputs=([0.0, 1.0], [0.5, 0.25], [1.0, 1.0]), trained=False),)

    def __init__(self, config: HalvesConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)

    def forward(self, inputs: list[tuple[float, float]]) -> ldmkit.Plane:
        """Two cells, where nobody says how many there are."""
        return self.on_grid(inputs, (2, 2))

    def on_grid(self, inputs: list[tuple[float, float]], grid: tuple[int, int]) -> ldmkit.Plane:
        """For latents of h x w cells."""
        h, w = grid
        right = (torch.arange(w, device=self.device) >= w / 2).to(self.dtype)
        light = torch.tensor(inputs, dtype=self.dtype, device=self.device) * self.config.contrast
        rows: Tensor = light[:, :1] * (1 - right) + light[:, 1:] * right
        both = torch.stack([rows, (2 * right - 1).expand_as(rows)], dim=1)
        return ldmkit.Plane(both[:, :, None, :].expand(-1, -1, h, -1).contiguous())

    def example(self, size: tuple[int, int]) -> tuple[float, float]:
        """Half light."""
        return (0.5, 0.5)
