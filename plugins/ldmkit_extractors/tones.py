"""Hints of a picture's tones: grey, thresholds, blur, and the picture at another size."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
from PIL import Image
from pydantic import Field
from torch import Tensor

from ldmkit import Example, Extractor, from_levels, to_levels
from ldmkit.bounds import MAX_SIDE
from ldmkit_extractors.gaussian import blurred

Array = np.ndarray[Any, Any]
Side: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SIDE)]
FILTERS = {name: Image.Resampling[name.upper()] for name in ("nearest", "box", "bilinear", "bicubic", "lanczos")}


def luma(levels: Array) -> Array:
    """Rec. 601 luma (H, W) of (H, W, 3) uint8 in 15-bit fixed point, as OpenCV's RGB2GRAY has it."""
    weighted = levels.astype(np.int32) @ np.array([9798, 19235, 3735], np.int32)
    return ((weighted + (1 << 14)) >> 15).astype(np.uint8)


def darkest(levels: Array) -> Array:
    """The smallest of the three channels, (H, W)."""
    return np.asarray(levels.min(axis=2))


class Grey(Extractor):
    """The picture without its colours, for networks that colour it: Rec. 601 luma in all three channels."""

    api: ClassVar[int] = 1

    def extract(self, value: Tensor) -> Tensor:
        return from_levels(luma(to_levels(value)))


class Threshold(Extractor):
    """White where all three channels are above `level`, black elsewhere.

    Args:
        level: of 255.
    """

    api: ClassVar[int] = 1

    level: int = Field(default=127, ge=0, le=254)

    def extract(self, value: Tensor) -> Tensor:
        return from_levels((darkest(to_levels(value)) > self.level).astype(np.uint8) * np.uint8(255))


class Scribble(Extractor):
    """White strokes on black from a drawing with dark strokes on a light ground (the hint of `control_*_scribble`).

    A stroke is where the darkest channel is below `level`, so that coloured pens count.

    Args:
        level: of 255.
    """

    api: ClassVar[int] = 1

    level: int = Field(default=127, ge=1, le=255)

    def extract(self, value: Tensor) -> Tensor:
        return from_levels((darkest(to_levels(value)) < self.level).astype(np.uint8) * np.uint8(255))


class Blur(Extractor):
    """The picture, blurred: a Gaussian, mirrored at the edge pixels.

    Args:
        sigma: in pixels.
    """

    api: ClassVar[int] = 1

    sigma: float = Field(default=4.0, ge=0, le=256)

    def extract(self, value: Tensor) -> Tensor:
        return from_levels(np.rint(blurred(to_levels(value).astype(np.float64), self.sigma)).astype(np.uint8))


class Tile(Extractor):
    """The picture itself, at the size to be drawn, with less detail (the hint of `control_v11f1e_sd15_tile`).

    Args:
        size: (height, width) of the hint; None: the picture's.
        shrink: how many times smaller it is made before, by averages over boxes, to take its detail away.
        filter: with which it is brought to its size.
    """

    api: ClassVar[int] = 1
    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"size": [24, 40], "shrink": 2.5}))

    size: tuple[Side, Side] | None = None
    shrink: float = Field(default=1.0, ge=1, le=1024)
    filter: Literal["nearest", "box", "bilinear", "bicubic", "lanczos"] = "lanczos"

    def extract(self, value: Tensor) -> Tensor:
        image = Image.fromarray(to_levels(value))
        height, width = self.hint_size(value)
        if self.shrink > 1:
            small = (max(1, round(side / self.shrink)) for side in image.size)
            image = image.resize((next(small), next(small)), Image.Resampling.BOX)
        if image.size != (width, height):
            image = image.resize((width, height), FILTERS[self.filter])
        return from_levels(np.array(image))

    def hint_size(self, value: Tensor) -> tuple[int, int]:
        return super().hint_size(value) if self.size is None else self.size
