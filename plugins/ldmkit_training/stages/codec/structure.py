"""Distances between pictures that need no weights from elsewhere."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ldmkit import Example, Perceptual, Value
from ldmkit_training.stages.codec.scales import mean_over_scales


class NoDistance(Perceptual):
    """No distance: 0 for every pair."""

    examples = (Example(trained=False),)

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        return images.new_zeros(images.shape[0], dtype=torch.float32)


class StructureConfig(Value):
    """Args:
    scales: resolutions at which pictures are compared, each half the one before.
    floor: local contrast (deviation, in units of the pictures' [-1,1]) below which differences count less and less.
    """

    scales: int = Field(default=3, ge=1, le=6)
    floor: float = Field(default=0.05, gt=0)


class Structure(Perceptual):
    """Differences of local texture relative to its local contrast, over several scales.

    Each channel's 3x3 neighbourhoods are split by the discrete cosine transform into their mean, which is left to the
    pixels' own term, and 8 patterns (edges, corners, lines). The patterns' differences are divided by the contrast of
    the reference there, so that a soft texture that is lost costs as much as a hard edge that is lost: without it
    codecs average faint texture away. Mean over places, channels and scales of the absolute difference.
    """

    Config = StructureConfig
    config: StructureConfig
    examples = (Example(), Example({"scales": 1, "floor": 0.2}))

    def __init__(self, config: Any = None):
        super().__init__(config)
        at = torch.arange(3, dtype=torch.float64, device="cpu")
        basis = torch.stack([torch.cos(torch.pi * (at + 0.5) * k / 3) for k in range(3)])
        basis = basis / basis.norm(dim=1, keepdim=True)
        patterns = torch.einsum("iy,jx->ijyx", basis, basis).reshape(9, 1, 3, 3)[1:].float()
        self.patterns: Tensor
        self.register_buffer("patterns", patterns, persistent=False)

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        return mean_over_scales(self._difference, images, reference, self.config.scales, least=3)

    def _difference(self, a: Tensor, b: Tensor) -> Tensor:
        wrong = F.conv2d((a - b).flatten(0, 1)[:, None], self.patterns.to(a)) / 3
        # the basis is orthonormal: the squares of the patterns' shares add up to the local variance
        mean = F.avg_pool2d(b, 3, stride=1)
        variance = (F.avg_pool2d(b.square(), 3, stride=1) - mean.square()).clamp(min=0)
        contrast = (variance + self.config.floor**2).sqrt().flatten(0, 1)[:, None]
        return (wrong.abs() / contrast).view(a.shape[0], -1).mean(1)
