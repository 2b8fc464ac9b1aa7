"""A source of pictures that tells what it can without making one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

import ldmkit

NAMES = ("dark", "light")


class Bars(ldmkit.Data):
    """Upright bars, with two texts to choose from and a class.

    Args:
        count: how many there are.
        size: side in pixels.
    """

    api: ClassVar[int] = 1
    examples: ClassVar[tuple[ldmkit.Example, ...]] = (ldmkit.Example({"count": 5, "size": 8}),)
    count: int = Field(default=100, ge=1)
    size: int = Field(default=16, ge=2)

    def open(self, folder: Path) -> BarsDataset:
        """Nothing is read."""
        return BarsDataset(self.count, self.size)


class BarsDataset(ldmkit.Dataset):
    """See `Bars`."""

    geometry: ClassVar[dict[str, ldmkit.Geometry]] = {"words": "none", "label": "none"}
    numbering: ClassVar[dict[str, Sequence[str]]] = {"label": NAMES}
    choices = frozenset({"words"})
    notes = ("bars are made, not read",)

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        half = count // 2
        self.mixture = ((half, 1), (count - half, 2)) if half else ()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> ldmkit.Sample:
        colour = np.random.default_rng(index).integers(0, 256, 3, dtype=np.uint8)
        bars = (np.arange(self.size, dtype=np.uint8) // 2 % 2)[None, :, None] * colour
        image = np.ascontiguousarray(np.broadcast_to(bars, (self.size, self.size, 3)))
        return ldmkit.Sample(self.id(index), image, self.inputs(index))

    def id(self, index: int) -> str:
        return f"bars-{self.size}-{index}"

    def inputs(self, index: int) -> Mapping[str, Any]:
        return {"words": [f"bars {index % 10}", "bars"], "label": index % 2}

    def known(self, index: int) -> Mapping[str, Any] | None:
        return self.inputs(index)

    def content(self, index: int) -> tuple[bytes, bytes] | None:
        return repr(self.inputs(index)).encode(), self.id(index).encode()

    def picture_size(self, index: int) -> tuple[int, int] | None:
        return self.size, self.size
