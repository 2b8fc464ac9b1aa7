"""The noise that is added in training: white, or with more of it at large scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ldmkit import Draws, Value


class PyramidNoise(Value):
    """White noise at the latents' size, a half, a quarter ... down to one pixel, bilinearly enlarged, summed, and
    normalised to unit deviation per row ("multi-resolution noise", Whitaker 2023).

    Args:
        discount: level i has the weight discount ** i; 0 would leave the first level only.
        levels: maximum number of smaller levels.
    """

    discount: float = Field(default=0.3, gt=0, le=1)
    levels: int = Field(default=10, ge=1, le=16)


def training_noise(
    draws: Draws, shape: Sequence[int], offset: float = 0.0, pyramid: PyramidNoise | None = None
) -> Tensor:
    """(B, *shape) float32 on the CPU, a function of the draws alone; white noise where nothing else is asked for.

    Args:
        shape: (C, h, w) of one row.
        offset: deviation of a random constant added to each channel of a row (Guttenberg 2023, "noise offset").
    """
    noise = draws.normal("noise", shape)
    if pyramid is not None:
        noise = _pyramid(noise, draws, pyramid)
    if offset:
        noise = noise + offset * draws.normal("noise-offset", (shape[0], *(1 for _ in shape[1:])))
    return noise


def _pyramid(noise: Tensor, draws: Draws, pyramid: PyramidNoise) -> Tensor:
    height, width = noise.shape[-2:]
    for level in range(1, pyramid.levels + 1):
        if max(height, width) == 1:
            break
        height, width = max(1, height // 2), max(1, width // 2)
        small = draws.normal(f"noise-level-{level}", (noise.shape[1], height, width))
        larger = functional.interpolate(small, noise.shape[-2:], mode="bilinear", align_corners=False)
        noise = noise + pyramid.discount**level * larger
    return noise / noise.flatten(1).std(1).view(-1, *(1 for _ in noise.shape[1:]))


def mask_weights(masks: Sequence[Tensor | None], size: tuple[int, int], outside: float) -> Tensor:
    """(B,1,h,w) float32: weight of the error at each latent position, 1 inside a mask and `outside` elsewhere.

    Args:
        masks: (1,H,W) in [0, 1] of each row, 1 inside; None: the row has none, and counts whole.
        size: (h, w) of the latents: of the pixels under each, the mean.
    """
    whole = torch.ones(1, *size)
    rows = [whole if mask is None else functional.adaptive_avg_pool2d(mask.float().cpu(), size) for mask in masks]
    inside = torch.stack(rows)
    return inside + (1 - inside) * outside
