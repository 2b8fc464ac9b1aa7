"""Structural similarity over several scales as a distance: it keeps texture, and needs no weights."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ldmkit import Example, Perceptual, Value
from ldmkit_training.stages.codec.scales import mean_over_scales


class SimilarityConfig(Value):
    """Args:
    scales: resolutions at which pictures are compared, each half the one before.
    window: side of the neighbourhoods in pixels.
    floor: local deviation (in units of the pictures' [-1,1]) below which differences count less and less.
    """

    scales: int = Field(default=3, ge=1, le=6)
    window: int = Field(default=3, ge=3, le=31)
    floor: float = Field(default=0.05, gt=0)


class Similarity(Perceptual):
    """1 - the contrast and structure term of SSIM (Wang et al. 2003, equations 5 and 6), the mean over scales.

    In each neighbourhood var(x - y) / (var(x) + var(y) + floor^2). Texture that a codec knows only roughly has its
    least cost at the reference's own contrast, where an absolute difference has it at less and blurs it. Means are
    left to the pixels' own term.
    """

    Config = SimilarityConfig
    config: SimilarityConfig
    examples = (Example(), Example({"scales": 2, "window": 5}))

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        return mean_over_scales(self._difference, images, reference, self.config.scales, self.config.window)

    def _difference(self, a: Tensor, b: Tensor) -> Tensor:
        spread = self._variance(a) + self._variance(b) + self.config.floor**2
        return (self._variance(a - b) / spread).flatten(1).mean(1)

    def _variance(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(x, self.config.window, stride=1)
        return (F.avg_pool2d(x.square(), self.config.window, stride=1) - mean.square()).clamp(min=0)
