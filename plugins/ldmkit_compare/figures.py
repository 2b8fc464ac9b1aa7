"""Distances of drawings from a reference: individually, and as distributions."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rms(latents: Tensor, reference: Tensor) -> float:
    """Root mean square difference of latents (B,C,h,w), over all values."""
    return float((latents.double() - reference.double()).square().mean().sqrt())


def psnr(images: Tensor, reference: Tensor) -> float | None:
    """Peak signal-to-noise ratio in dB of pictures (B,3,H,W) in [0,1]: -10 log10 of the mean square difference; None
    if they are equal."""
    square = float((images.double() - reference.double()).square().mean())
    return -10 * math.log10(square) if square > 0 else None


def marginal(latents: Tensor, reference: Tensor) -> float:
    """Largest difference of the cumulative distributions of the latents' values, mean over channels: in [0,1].

    The two-sample Kolmogorov-Smirnov statistic: it compares only how often values occur, in whatever picture, so
    drawings from different noise can be close.
    """
    found = []
    for mine, theirs in zip(latents.transpose(0, 1), reference.transpose(0, 1), strict=True):
        one, two = mine.flatten().double().sort().values, theirs.flatten().double().sort().values
        both = torch.cat([one, two])
        below = [torch.searchsorted(values, both, right=True) / len(values) for values in (one, two)]
        found.append(float((below[0] - below[1]).abs().max()))
    return sum(found) / len(found)


def spread(latents: Tensor, reference: Tensor) -> float:
    """Standard deviation of the latents' values within channels, as a multiple of the reference's."""
    mine, theirs = (x.double().transpose(0, 1).flatten(1).std(1).square().mean().sqrt() for x in (latents, reference))
    return float(mine / theirs) if theirs > 0 else math.inf
