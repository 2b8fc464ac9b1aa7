"""Stripes of two colours, drawn as they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

import ldmkit


class Stripes(ldmkit.Data):
    """Pictures of horizontal stripes, and their palette.

    Args:
        count: how many there are.
        size: side in pixels.
    """

    api: ClassVar[int] = 1
    examples: ClassVar[tuple[ldmkit.Example, ...]] = (ldmkit.Example({"count": 5, "size": 8}),)
    count: int = Field(default=100, ge=1)
    size: int = Field(default=16, ge=2)

    def open(self, folder: Path) -> StripesDataset:
        """Nothing is read."""
        return StripesDataset(self.count, self.size)


class StripesDataset(ldmkit.Dataset):
    """See `Stripes`."""

    geometry: ClassVar[dict[str, ldmkit.Geometry]] = {"palette": "none"}

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> ldmkit.Sample:
        colours = np.random.default_rng(index).integers(0, 256, (2, 3), dtype=np.uint8)
        rows = np.arange(self.size) // 2 % 2
        image = np.ascontiguousarray(np.broadcast_to(colours[rows][:, None], (self.size, self.size, 3)))
        palette = ["#" + bytes(colour).hex() for colour in colours]
        return ldmkit.Sample(self.id(index), image, {"palette": palette})

    def id(self, index: int) -> str:
        return f"stripes-{self.size}-{index}"
