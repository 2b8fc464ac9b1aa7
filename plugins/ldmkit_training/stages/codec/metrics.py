"""Reconstruction metrics: PSNR and SSIM."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, DEVIATION = 11, 1.5


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture: (B,), of (B,3,H,W) in [-1,1]; what lies outside is clipped
    first, as in saved pictures. Equal pictures get 120 dB."""
    wrong = (images.clamp(-1, 1) - reference).double().square().flatten(1).mean(1)
    return 10 * torch.log10(4 / wrong.clamp(min=4e-12))


def ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity of each picture (Wang et al. 2004, equation 13): (B,), of (B,3,H,W) in [-1,1].

    Gaussian window of 11 pixels (the picture's smaller side, where that is less) and deviation 1.5, no padding,
    K = 0.01 and 0.03; the mean over channels.
    """
    a, b = images.clamp(-1, 1).double(), reference.double()
    size = min(WINDOW, *a.shape[-2:])

    def blur(x: Tensor) -> Tensor:
        window = _gaussian(size).to(x)
        rows = F.conv2d(x.flatten(0, 1)[:, None], window.view(1, 1, -1, 1))
        return F.conv2d(rows, window.view(1, 1, 1, -1))

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * both + c2) / (var_a + var_b + c2)
    return (light * structure).view(a.shape[0], -1).mean(1)


@cache
def _gaussian(size: int) -> Tensor:
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-at.square() / (2 * DEVIATION**2))
    return weights / weights.sum()
