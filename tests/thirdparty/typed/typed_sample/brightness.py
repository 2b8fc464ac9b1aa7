"""A new modality: how bright the picture should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

import ldmkit


class BrightnessConfig(ldmkit.Value):
    """Args: dim of the vector; levels that the input is cut into."""

    dim: int = Field(default=8, ge=1)
    levels: int = Field(default=16, ge=2)


class Brightness(ldmkit.Conditioner):
    """A number from 0 (black) to 1 (white), as one vector."""

    api = 1
    Config = BrightnessConfig
    config: BrightnessConfig
    Input = Annotated[float, Field(ge=0, le=1)]
    kind = "vector"
    examples: ClassVar[tuple[ldmkit.Example, ...]] = (ldmkit.Example({"dim": 4}, (0.0, 0.25, 1.0)),)

    def __init__(self, config: BrightnessConfig | Mapping[str, object] | None = None) -> None:
        super().__init__(config)
        self.dim = self.config.dim
        self.table = nn.Parameter(torch.randn(self.config.levels, self.config.dim) * 0.02)

    def forward(self, inputs: list[float]) -> ldmkit.Vector:
        """One row an input: the two nearest levels, blended."""
        place = torch.tensor(inputs, dtype=self.table.dtype, device=self.table.device) * (self.config.levels - 1)
        low = place.floor().clamp(max=self.config.levels - 2)
        share = (place - low).unsqueeze(1)
        index = low.long()
        return ldmkit.Vector(torch.lerp(self.table[index], self.table[index + 1], share))

    def null(self, like: ldmkit.Signal) -> ldmkit.Signal:
        """The mean of all levels, whatever the picture."""
        if not isinstance(like, ldmkit.Vector):
            raise ldmkit.CompositionError("wrong-signal", f"a vector is wanted, got {type(like).__name__}")
        mean: Tensor = self.table.mean(0, keepdim=True)
        return ldmkit.Vector(mean.expand(like.value.shape[0], -1))

    def example(self, size: tuple[int, int]) -> float:
        """Grey."""
        return 0.5
