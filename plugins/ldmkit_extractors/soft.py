"""Soft edges and line drawings without a network."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from ldmkit import Extractor, from_levels, to_levels
from ldmkit_extractors.gaussian import blurred
from ldmkit_extractors.gradients import sobel
from ldmkit_extractors.tones import luma

Array = np.ndarray[Any, Any]


def stepped(edges: Array, steps: int) -> Array:
    """Edges in [0, 1] as multiples of 1 / steps, as `safe` soft edges have them (2); 0: as they are."""
    return edges if steps == 0 else np.minimum(np.floor(edges * (steps + 1)), steps) / steps


def grey_levels(edges: Array) -> Tensor:
    """A hint from (H, W) in [0, 1], clipped there and rounded to levels."""
    return from_levels(np.rint(edges.clip(0, 1) * 255).astype(np.uint8))


class Sobel(Extractor):
    """Soft white edges on black: the gradient of the luma. Stands in for HED where its weights are not at hand.

    The value is |gradient| by Sobel's 3x3 kernels, in units in which a step between two pixels is as high as the edge
    is bright at a gain of 1.

    Args:
        sigma: of the blur before, in pixels.
        gain: of the edges' brightness.
        steps: of brightness that are told apart, so that faint texture does not get through; 0: all, 2: `safe`.
    """

    api: ClassVar[int] = 1

    sigma: float = Field(default=1.0, ge=0, le=64)
    gain: float = Field(default=4.0, gt=0, le=1000)
    steps: int = Field(default=0, ge=0, le=255)

    def extract(self, value: Tensor) -> Tensor:
        grey = blurred(luma(to_levels(value)).astype(np.float64), self.sigma)
        dx, dy = sobel(grey[..., None], 3)
        edges = np.hypot(dx, dy)[..., 0] / 4 / 255 * self.gain
        return grey_levels(stepped(edges.clip(0, 1), self.steps))


class XDoG(Extractor):
    """Soft white strokes on black, by extended differences of Gaussians (Winnemöller 2011, equations 1 and 2).

    D = G(sigma) - tau G(k sigma) of the luma in [0, 1]; a stroke is -tanh(phi (D - epsilon)) where D is below epsilon:
    on the dark side of edges, while flat areas of any brightness stay black.

    Args:
        sigma: of the inner Gaussian, in pixels: half the width of strokes.
        k: of the outer one, times the inner.
        tau: weight of the outer one; nearer to 1, weaker edges are drawn.
        epsilon: threshold.
        phi: sharpness of strokes.
        steps: as of `sobel`.
    """

    api: ClassVar[int] = 1

    sigma: float = Field(default=1.0, gt=0, le=64)
    k: float = Field(default=1.6, gt=1, le=16)
    tau: float = Field(default=0.99, ge=0, le=1)
    epsilon: float = Field(default=0.0, ge=-1, le=1)
    phi: float = Field(default=30.0, gt=0, le=1e4)
    steps: int = Field(default=0, ge=0, le=255)

    def extract(self, value: Tensor) -> Tensor:
        grey = luma(to_levels(value)) / 255
        difference = blurred(grey, self.sigma) - self.tau * blurred(grey, self.k * self.sigma)
        strokes = -np.tanh(self.phi * np.minimum(difference - self.epsilon, 0))
        return grey_levels(stepped(strokes, self.steps))


class Lineart(Extractor):
    """White lines on black from what is darker than its surroundings in every channel (`lineart_standard`).

    Drawings with dark lines, and photographs with dark contours. The hint is I = min over channels of G(sigma) - x,
    clipped at 0, times 127 over the median of I where it is above `threshold`, or over 16 where that is larger.

    Args:
        sigma: of the surroundings, in pixels.
        threshold: levels below which a difference does not count for the median.
    """

    api: ClassVar[int] = 1

    sigma: float = Field(default=6.0, gt=0, le=256)
    threshold: float = Field(default=8.0, ge=0, le=255)

    def extract(self, value: Tensor) -> Tensor:
        levels = to_levels(value).astype(np.float32)
        darker = (blurred(levels, self.sigma) - levels).min(axis=2).clip(0, 255)
        lines = darker[darker > self.threshold]
        scale = max(16.0, float(np.median(lines))) if lines.size else 16.0
        return from_levels((darker / scale * 127).clip(0, 255).astype(np.uint8))
