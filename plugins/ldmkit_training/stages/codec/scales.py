"""A distance between pictures, taken at several resolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def mean_over_scales(
    distance: Callable[[Tensor, Tensor], Tensor], images: Tensor, reference: Tensor, scales: int, least: int
) -> Tensor:
    """(B,) float32: the mean of distance(a, b) over resolutions of pictures (B,3,H,W), each half the one before.

    Args:
        distance: (B,) of two batches (B,3,h,w) float32.
        scales: how many resolutions; those with a side below `least` are left out, and 0 is what is left of none.
    """
    a, b = images.float(), reference.float()
    found: list[Tensor] = []
    for scale in range(scales):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        if min(a.shape[-2:]) < least:
            break
        found.append(distance(a, b))
    return torch.stack(found).mean(0) if found else a.flatten(1).sum(1) * 0
