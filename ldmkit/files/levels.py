"""8-bit levels of pictures, and back, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldmkit.errors import InputError


def to_levels(picture: Tensor) -> np.ndarray[Any, Any]:
    """A picture (3, H, W) in [-1, 1] as (H, W, 3) uint8 in memory of its own, rounded to the nearest level."""
    levels = ((picture.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())


def from_levels(levels: np.ndarray[Any, Any]) -> Tensor:
    """A picture (3, H, W) float32 in [-1, 1] from uint8 (H, W, 3), or from grey (H, W); as a PNG of them is read.

    Raises:
        InputError: `picture-shape`, `picture-dtype`.
    """
    if levels.dtype != np.uint8:
        raise InputError("picture-dtype", f"an array of {levels.dtype}", where="levels", fits="uint8")
    if levels.ndim not in (2, 3) or (levels.ndim == 3 and levels.shape[2] != 3) or 0 in levels.shape:
        fits = "(height, width), or (height, width, 3)"
        raise InputError("picture-shape", f"an array of shape {levels.shape}", where="levels", fits=fits)
    colours = np.repeat(levels[..., None], 3, axis=2) if levels.ndim == 2 else levels
    return torch.from_numpy(np.array(colours.transpose(2, 0, 1), order="C")).float() / 127.5 - 1
