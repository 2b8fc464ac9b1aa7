"""Gaussian blur of tokens that lie on a map."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ldmkit import InputError


def map_size(latents: tuple[int, int], places: int) -> tuple[int, int]:
    """Rows and columns of the map with as many places: the latents', halved, rounding up or down, again and again.

    Raises:
        InputError: `places`: there is none.
    """
    for half in (lambda n: (n + 1) // 2, lambda n: n // 2):
        height, width = latents
        while height and width and height * width >= places:
            if height * width == places:
                return height, width
            if (height, width) == (1, 1):
                break
            height, width = half(height), half(width)
    what = f"{places} tokens are no map of the latents {latents[0]}x{latents[1]}"
    raise InputError("places", what, where="guidance.layers", fits="layers whose attention is over places")


def blurred(tokens: Tensor, size: tuple[int, int], deviation: float | None) -> Tensor:
    """Tokens (B, H, L, D) on a map of `size`, L = height x width, each channel blurred over the map.

    The kernel reaches 3 deviations, or over the map where that is less; borders are mirrored. None: the mean.
    """
    if deviation is None:
        return tokens.mean(2, keepdim=True).expand_as(tokens)
    b, heads, _, depth = tokens.shape
    maps = tokens.permute(0, 1, 3, 2).reshape(b * heads * depth, 1, *size)
    for axis, length in ((2, size[0]), (3, size[1])):
        kernel = _kernel(deviation, length).to(tokens)
        half = len(kernel) // 2
        padding = (0, 0, half, half) if axis == 2 else (half, half, 0, 0)
        shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
        maps = F.conv2d(F.pad(maps, padding, mode="reflect"), kernel.view(shape))
    return maps.view(b, heads, depth, -1).permute(0, 1, 3, 2)


def _kernel(deviation: float, length: int) -> Tensor:
    reach = math.ceil(6 * deviation)
    count = min(reach + 1 - reach % 2, length - (length % 2 - 1))
    places = torch.arange(count, dtype=torch.float64) - (count - 1) / 2
    weights = torch.exp(-0.5 * (places / deviation).square())
    return weights / weights.sum()
