"""Keeping what is known: any `denoise`, with the estimate replaced outside the mask."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ldmkit.contracts import Denoise


class KnownRegion:
    """`denoise` with the x0 estimate replaced by the known latent where the mask is 0.

    A run that starts on x0_known + sigma * n then stays on it there exactly, under every sampler. With
    `renoise` the state itself is replaced before each call by the known latent under fresh noise, which is
    what the original code does (its mask has the opposite sense: 1 keeps).

    Args:
        known: latent (B,C,h,w).
        mask: (B,1,h,w) in [0, 1]; 1 = generate, 0 = keep.
        renoise: index of the call -> unit noise of `known`'s shape.
    """

    def __init__(
        self, denoise: Denoise, known: Tensor, mask: Tensor, renoise: Callable[[int], Tensor] | None = None
    ) -> None:
        self.denoise, self.known, self.mask, self.renoise = denoise, known, mask, renoise
        self.calls = 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        if self.renoise is not None:
            x = (self.known + sigma * self.renoise(self.calls)).lerp(x, self.mask)
            self.calls += 1
            return self.denoise(x, sigma)
        return self.known.lerp(self.denoise(x, sigma), self.mask)


def latent_mask(mask: Tensor, factor: int) -> Tensor:
    """A pixel mask (B,1,H,W) at latent resolution: a latent is generated if any of its pixels is."""
    return mask if factor == 1 else F.max_pool2d(mask, factor)
