"""Natural inputs for any pipeline of the family, made from the names and kinds of its conditioners."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import ldmkit

Size = tuple[int, int]

CLIP_IDS = [49406, 320, 1125, 539, 49407]
BERT_IDS = [101, 1037, 4937, 102]


class Given(NamedTuple):
    """One row of inputs, and whether they tell the picture's size."""

    row: dict[str, Any]
    sized: bool


def picture(size: Size, seed: int = 0) -> Image.Image:
    """Noise of (height, width)."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def hole(size: Size) -> Image.Image:
    """A mask with a white rectangle."""
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = 255
    return Image.fromarray(mask)


def inputs_for(pipe: ldmkit.Pipeline, size: Size) -> Given:
    """What a user would give for a picture of (height, width)."""
    row: dict[str, Any] = {}
    types = {name: wire.type for name, wire in pipe.wiring.items() if wire.input is None}
    for name, kind in types.items():
        if kind == "label":
            row[name] = 207
        elif kind == "semantic":
            row[name] = np.random.default_rng(1).integers(0, 182, size)
        elif kind == "masked-image":
            row[name] = {"image": picture(size), "mask": hole(size)}
        elif kind == "image":
            row[name] = picture((-(-size[0] // 4), -(-size[1] // 4)))
        elif kind == "hint":
            row[name] = picture(size)
        elif kind == "given":
            row[name] = np.random.default_rng(2).normal(size=(4, pipe.conditioners[name].dim))
        elif kind in ("clip-text", "ldm-text"):
            row[name] = CLIP_IDS if kind == "clip-text" else BERT_IDS
    return Given(row, any(kind in ("semantic", "masked-image", "image", "hint") for kind in types.values()))
