"""Keeping what is known: any `denoise`, with the estimate replaced outside the mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ldmkit.contracts import Denoise


class KnownRegion:
    """`denoise` with the x0 estimate replaced by the known latent where the mask is 0.

    A run that starts on x0_known + sigma * n then stays on it there exactly, under every sampler.

    Args:
        known: latent (B,C,h,w).
        mask: (B or 1,1,h,w) in [0, 1]; 1 = generate, 0 = keep.
    """

    def __init__(self, denoise: Denoise, known: Tensor, mask: Tensor) -> None:
        self.denoise, self.known, self.mask = denoise, known, mask

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self.known.lerp(self.denoise(x, sigma), self.mask)


def latent_mask(mask: Tensor, factor: int) -> Tensor:
    """A pixel mask (B,1,H,W) at latent resolution: a latent is generated if any of its pixels is."""
    return mask if factor == 1 else F.max_pool2d(mask, factor)


def kept(images: Tensor, original: Tensor, mask: Tensor) -> Tensor:
    """Pictures in [0,1] with those of the original, in [-1,1], where the mask is 0."""
    return torch.where(mask == 0, (original + 1) * 0.5, images)
