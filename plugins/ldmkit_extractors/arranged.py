"""Hints of where things are to be kept: pictures out of place, and pictures with holes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from ldmkit_conditioners.masked_image import Masked
from PIL import Image
from pydantic import Field
from torch import Tensor

from ldmkit import MASKED, Example, Extractor, from_levels, to_levels
from ldmkit.files.json import raw_input

Array = np.ndarray[Any, Any]
ROWS = 128
"""Rows of a shuffled picture that are read at a time."""


class Shuffle(Extractor):
    """The picture's colours out of place, pulled about by a smooth random field (for `control_v11e_sd15_shuffle`).

    Every pixel is read from a place that two fields give, x and y over the whole picture, bilinearly. A field is cubic
    between random numbers `scale` pixels apart, and stretched to [0, 1]. The published preprocessor draws
    other numbers.

    Args:
        seed: of the field.
        scale: distance of its random numbers, in pixels.
    """

    api: ClassVar[int] = 1

    seed: int = Field(default=0, ge=0, lt=2**63)
    scale: int = Field(default=256, ge=2, le=8192)

    def extract(self, value: Tensor) -> Tensor:
        levels = to_levels(value)
        height, width = levels.shape[:2]
        x, y = (self._field(height, width, number) for number in (0, 1))
        found = np.empty_like(levels)
        for top in range(0, height, ROWS):  # all rows at once take gigabytes for a large picture
            rows = slice(top, top + ROWS)
            found[rows] = np.rint(_read(levels, x[rows] * (width - 1), y[rows] * (height - 1))).astype(np.uint8)
        return from_levels(found)

    def _field(self, height: int, width: int, number: int) -> Array:
        """(H, W) in [0, 1]."""
        rows, columns = height // self.scale + 2, width // self.scale + 2
        bits = np.random.Philox(key=[self.seed, number]).random_raw(rows * columns)  # a stream that numpy never changes
        coarse = Image.fromarray((bits >> 40).reshape(rows, columns).astype(np.float32) / np.float32(1 << 24))
        box = (columns * self.scale, rows * self.scale)
        fine = np.asarray(coarse.resize(box, Image.Resampling.BICUBIC), np.float64)
        top, left = (box[1] - height) // 2, (box[0] - width) // 2
        field = fine[top : top + height, left : left + width]
        span = float(np.ptp(field))
        return np.round((field - field.min()) / span, 6) if span > 0 else np.zeros_like(field)


def _read(levels: Array, x: Array, y: Array) -> Array:
    """(H, W, C) at places between its pixels, bilinearly."""
    left, top = (
        np.minimum(np.floor(place).astype(int), side - 1)
        for place, side in ((x, levels.shape[1]), (y, levels.shape[0]))
    )
    right, below = np.minimum(left + 1, levels.shape[1] - 1), np.minimum(top + 1, levels.shape[0] - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    upper = levels[top, left] * (1 - across) + levels[top, right] * across
    lower = levels[below, left] * (1 - across) + levels[below, right] * across
    return np.asarray(upper * (1 - down) + lower * down)


class Inpaint(Extractor):
    """The picture with its hole marked: -1 in the [0, 1] that `control_v11p_sd15_inpaint` reads.

    Takes a picture and a mask of its size, white (above one half) where it is to be filled:
    `{"image": "photo.png", "mask": "mask.png"}`. A PNG cannot hold such a hint; an .npy file can.
    """

    Input: ClassVar[Any] = Masked
    api: ClassVar[int] = 1
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            inputs=(
                {"image": np.full((2, 3, 3), 200, np.uint8), "mask": np.array([[0, 255, 255], [0, 0, 255]], np.uint8)},
                {"image": np.full((2, 3, 3), 100, np.uint8), "mask": np.array([[0, 255, 0], [0, 0, 255]], np.uint8)},
            )
        ),
    )

    def extract(self, value: Masked) -> Tensor:
        return torch.where(value.mask > 0.5, MASKED, from_levels(to_levels(value.image)))

    def hint_size(self, value: Masked) -> tuple[int, int]:
        return super().hint_size(value.image)

    @classmethod
    def from_text(cls, text: str) -> Any:
        """JSON, or the path of a .json file."""
        return raw_input(text)
