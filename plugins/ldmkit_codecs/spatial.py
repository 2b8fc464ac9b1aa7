"""Group norms whose scale and shift are computed from the latent at each position (Zheng et al. 2022, MoVQ)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ldmkit_codecs.wholes import Place


@dataclass
class Guide:
    """The latent that spatial norms read.

    Args:
        latent: (B, c, h, w), of the whole picture.
        factor: pixels per position of the latent.
        place: the tile that is being decoded, on multiples of `factor`; None: the whole picture.
    """

    latent: Tensor
    factor: int
    place: Place | None = None

    def part(self) -> Tensor:
        """The latent of the current tile."""
        if self.place is None:
            return self.latent
        rows, columns = (slice(a // self.factor, b // self.factor) for a, b in (self.place.rows, self.place.columns))
        return self.latent[..., rows, columns]


class SpatialNorm(nn.Module):
    """y = norm(x) * scale(z) + shift(z), with z enlarged to the size of x by nearest-neighbour interpolation.

    Args:
        groups: number of groups of the norm, which has a scale and shift of its own as well.
        channels: of x.
        guide: channels of z.
        eps: of the norm.
    """

    def __init__(self, groups: int, channels: int, guide: int, eps: float):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=eps)
        self.scale = nn.Conv2d(guide, channels, 1)
        self.shift = nn.Conv2d(guide, channels, 1)

    def forward(self, x: Tensor, guide: Guide) -> Tensor:
        """(B, channels, h * n, w * n) -> the same shape, for a guide of (h, w) positions."""
        z = guide.part()
        # 1x1 convolutions commute with nearest-neighbour interpolation: they run at the latent's resolution, and
        # each of their results applies to n x n positions
        scale, shift = (layer(z)[:, :, :, None, :, None] for layer in (self.scale, self.shift))
        n = x.shape[-1] // z.shape[-1]
        cells = self.norm(x).unflatten(3, (-1, n)).unflatten(2, (-1, n))
        if torch.is_grad_enabled() and (cells.requires_grad or scale.requires_grad):
            cells = cells * scale + shift
        else:
            cells = cells.mul_(scale).add_(shift)
        return cells.flatten(4).flatten(2, 3)
