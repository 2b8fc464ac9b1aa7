"""The world as a source of training data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ldmkit import Data, Dataset, Example, Geometry, Sample
from ldmkit_miniworld.world import MAX_SIDE, World, digest


class MiniworldDataset(Dataset):
    """Pictures `start` to `start + count - 1` of a split, drawn when they are asked for."""

    geometry: Mapping[str, Geometry] = {"text": "none", "label": "none", "layout": "boxes", "semantic": "map"}

    def __init__(self, split: str, count: int, size: int, start: int):
        self.split, self.count, self.start = split, count, start
        self.world = World(size)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        picture = self.world.sample(self.split, self._number(index))
        inputs = {
            "text": picture.caption,
            "label": picture.label,
            "layout": picture.layout,
            "semantic": picture.semantic,
        }
        return Sample(picture.id, picture.image, inputs)

    def id(self, index: int) -> str:
        return f"{self.split}/{self._number(index)}"

    @property
    def fingerprint(self) -> str:
        # The first picture stands for the way in which all are drawn.
        first = self.world.sample(self.split, self.start)
        return f"miniworld {self.split} {self.start} {self.count} {self.world.size} {digest(first)}"

    def _number(self, index: int) -> int:
        if not 0 <= index < self.count:
            raise IndexError(f"sample {index} of {self.count}")
        return self.start + index


class MiniworldData(Data):
    """Part `miniworld`: samples with the inputs text, label (the class by name), layout and semantic.

    Mirrored pictures make captions false ("left of"), so recipes keep `mirror` at 0.

    Args:
        split: any name; pictures of different splits have nothing to do with each other.
        count: how many pictures.
        size: side in pixels, a multiple of 32.
        start: the first picture's number.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example({"count": 3, "size": 32, "split": "check", "start": 7}),)

    split: str = Field(default="train", min_length=1)
    count: int = Field(default=60000, gt=0)
    size: int = Field(default=64, gt=0, multiple_of=32, le=MAX_SIDE)
    start: int = Field(default=0, ge=0)

    def open(self, folder: Path) -> MiniworldDataset:
        return MiniworldDataset(self.split, self.count, self.size, self.start)
