"""Pictures as a CLIP vision encoder reads them: resized, cropped, normalised."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from pydantic import Field, PlainSerializer, PlainValidator
from torch import Tensor

from ldmkit import InputError, Value, read_picture
from ldmkit.bounds import MAX_PIXELS
from ldmkit.files.pictures import data_uri
from ldmkit_conditioners.several import read_several, schema, write_several
from ldmkit_conditioners.vision_tower import MAX_EDGE

Edge: TypeAlias = Annotated[int, Field(ge=1, le=MAX_EDGE)]
Three: TypeAlias = tuple[float, float, float]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


class Preprocessing(Value):
    """What transformers' CLIPImageProcessor does, on 8-bit levels as it does; the defaults are CLIP's.

    Args:
        shortest: pixels of the shorter side after resizing with a constant aspect ratio; None: see `resize`.
        resize: (height, width) to resize to, regardless of the aspect ratio; with `shortest` None too, no resizing.
        filter: Pillow's resampling filter.
        crop: (height, width) of a centre crop; None: no crop. Smaller pictures are padded with zeros.
        factor: factor applied to the levels 0 to 255; None: 1.
        mean, std: normalisation of each channel.
    """

    shortest: Edge | None = 224
    resize: tuple[Edge, Edge] | None = None
    filter: Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"] = "bicubic"
    crop: tuple[Edge, Edge] | None = (224, 224)
    factor: float | None = 1 / 255
    mean: Three = (0.48145466, 0.4578275, 0.40821073)
    std: Three = (0.26862954, 0.26130258, 0.27577711)

    def __call__(self, picture: Tensor) -> Tensor:
        """A picture (3, H, W) in [-1, 1] -> (3, h, w) float32.

        Values are rounded to 8-bit levels, as the encoder expects.
        """
        levels = ((picture.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        image = Image.fromarray(levels.permute(1, 2, 0).numpy())
        if (size := self.resized(image.height, image.width)) is not None:
            image = image.resize((size[1], size[0]), _FILTERS[self.filter])
        pixels = _cropped(np.asarray(image), self.crop).astype(np.float32)
        if self.factor is not None:
            pixels = (pixels.astype(np.float64) * self.factor).astype(np.float32)
        mean, std = (np.asarray(value, np.float32) for value in (self.mean, self.std))
        return torch.from_numpy(((pixels - mean) / std).transpose(2, 0, 1).copy())

    def resized(self, height: int, width: int, where: str | None = None) -> tuple[int, int] | None:
        """(height, width) after resizing; None: no resizing.

        Raises:
            InputError: `picture-too-large`: a picture so narrow that it would have too many pixels.
        """
        if self.resize is not None:
            return self.resize
        if self.shortest is None:
            return None
        long = int(self.shortest * max(height, width) / min(height, width))
        if long * self.shortest > MAX_PIXELS:
            what = f"{width} x {height} pixels are {long} x {self.shortest} where the shorter side is {self.shortest}"
            raise InputError("picture-too-large", what, where=where, fits=f"at most {MAX_PIXELS} pixels then")
        return (long, self.shortest) if width <= height else (self.shortest, long)


def _cropped(pixels: Any, size: tuple[int, int] | None) -> Any:
    """Centre crop of a picture (H, W, 3), padded with zeros if it is smaller."""
    if size is None:
        return pixels
    height, width = pixels.shape[:2]
    whole = np.zeros((max(size[0], height), max(size[1], width), 3), pixels.dtype)
    top, left = -((height - len(whole)) // 2), -((width - whole.shape[1]) // 2)
    whole[top : top + height, left : left + width] = pixels
    top, left = top + (height - size[0]) // 2, left + (width - size[1]) // 2
    return whole[top : top + size[0], left : left + size[1]]


def read_pictures(raw: Any) -> tuple[Tensor, ...]:
    """One picture or several, each as `ldmkit.read_picture` reads it: (3, H, W) in [-1, 1].

    Raises:
        InputError: `picture-*`; `picture-count`: none, or more than a batch may have.
    """
    return read_several(raw, read_picture, "picture")


def write_pictures(pictures: tuple[Tensor, ...]) -> Any:
    """JSON from which `read_pictures` restores exactly these pictures."""
    return write_several(pictures, data_uri)


Pictures: TypeAlias = Annotated[
    Any, PlainValidator(read_pictures), PlainSerializer(write_pictures, when_used="json"), schema("picture")
]
"""Pydantic type of one picture or several."""
