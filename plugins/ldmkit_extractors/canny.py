"""Canny's edges, as OpenCV computes them."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from ldmkit import Example, Extractor, from_levels, to_levels
from ldmkit_extractors.gradients import sobel
from ldmkit_extractors.tones import luma

Array = np.ndarray[Any, Any]

TAN_22 = 13573
"""tan 22.5 degrees in units of 2^-15; tan 67.5 degrees is that plus 2."""


class Canny(Extractor):
    """White edges on black, equal to `cv2.Canny` in every pixel (Canny 1986; the hint of `control_*_canny`).

    Gradients of Sobel over edge pixels repeated outwards, of each pixel the channel with the largest; thinned across
    the edge to the largest, and kept above `low` where joined, over corners too, to one above `high`. Nothing is
    blurred before. The two are exchanged where the first is larger. The published networks were trained with 100 and
    200, or with random ones.

    Args:
        low, high: of the gradient's magnitude, compared as OpenCV does: rounded down, then strictly above.
        aperture: side of Sobel's kernel.
        l2: sqrt(dx^2 + dy^2) as magnitude, rather than |dx| + |dy|.
        grey: of the picture's luma (Rec. 601), rather than of the strongest of its channels.
    """

    api: ClassVar[int] = 1
    examples: ClassVar[tuple[Example, ...]] = (Example(vary={"aperture": (3, 5, 7)}),)

    low: float = Field(default=100.0, ge=0, le=1e6)
    high: float = Field(default=200.0, ge=0, le=1e6)
    aperture: Literal[3, 5, 7] = 3
    l2: bool = False
    grey: bool = False

    def extract(self, value: Tensor) -> Tensor:
        levels = to_levels(value)
        channels = luma(levels)[..., None] if self.grey else levels
        return from_levels(edges(channels, self.low, self.high, self.aperture, self.l2))


def edges(levels: Array, low: float, high: float, aperture: int = 3, l2: bool = False) -> Array:
    """Edges, 0 or 255, (H, W) uint8 of (H, W, C) uint8."""
    dx, dy = sobel(levels, aperture)
    if aperture == 7:  # whose gradients OpenCV scales down, and its thresholds with them
        low, high = low / 16, high / 16
    if l2:
        low, high = min(low, 32767.0) ** 2, min(high, 32767.0) ** 2
        strength = dx * dx + dy * dy
    else:
        strength = np.abs(dx) + np.abs(dy)
    dx, dy, strength = _strongest(dx, dy, strength)
    low, high = sorted((math.floor(low), math.floor(high)))
    thin = _thinned(dx, dy, strength, low)
    return grown(thin, thin & (strength > high))


def _strongest(dx: Array, dy: Array, strength: Array) -> tuple[Array, Array, Array]:
    """Of each pixel those of the channel with the largest strength; the first of equal ones."""
    if strength.shape[2] == 1:
        return dx[..., 0], dy[..., 0], strength[..., 0]
    best = strength.argmax(axis=2)[..., None]
    picked = (np.take_along_axis(one, best, axis=2)[..., 0] for one in (dx, dy, strength))
    return next(picked), next(picked), next(picked)


def _thinned(dx: Array, dy: Array, strength: Array, low: int) -> Array:
    """Pixels above `low` whose strength is largest across the edge; outside of the picture it is 0."""
    rows, columns = np.nonzero(strength > low)
    padded = np.pad(strength, 1)
    width = padded.shape[1]
    flat, place = padded.ravel(), (rows + 1) * width + columns + 1
    x, y, here = np.abs(dx[rows, columns]).astype(np.int64), np.abs(dy[rows, columns]).astype(np.int64), flat[place]
    flatter = x * TAN_22
    level, upright = (y << 15) < flatter, (y << 15) > flatter + (x << 16)
    slope = np.where((dx[rows, columns] ^ dy[rows, columns]) < 0, -1, 1)  # of the diagonal across the edge
    step = np.where(level, 1, np.where(upright, width, width + slope))
    before, after = flat[place - step], flat[place + step]
    keeps = (here > before) & np.where(level | upright, here >= after, here > after)
    found = np.zeros(strength.shape, bool)
    found[rows[keeps], columns[keeps]] = True
    return found


def grown(candidates: Array, seeds: Array) -> Array:
    """255 at the seeds and at the candidates that are joined to one by steps to any of eight neighbours."""
    padded = np.pad(candidates & ~seeds, 1)
    width = padded.shape[1]
    steps = (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1)
    waiting = bytearray(padded.tobytes())  # 1 where a candidate was not reached yet
    starts = np.flatnonzero(np.pad(seeds, 1))
    beside = np.unique((starts[:, None] + np.array(steps)).ravel())
    stack = beside[padded.ravel()[beside]].tolist()
    for place in stack:
        waiting[place] = 0
    while stack:
        place = stack.pop()
        for step in steps:
            if waiting[place + step]:
                waiting[place + step] = 0
                stack.append(place + step)
    left = np.frombuffer(waiting, bool).reshape(padded.shape)[1:-1, 1:-1]
    return (candidates & ~left).astype(np.uint8) * np.uint8(255)
