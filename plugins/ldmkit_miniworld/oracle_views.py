"""Spoiled views of renders: an oracle that has seen them is not brittle on pictures that a codec softened."""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def spoiled(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B,3,64,64) in [0,1] with a little of each: blur, lost detail, JPEG blocks, noise, other light.

    About a third of the pictures stays as it is.
    """
    count = len(images)
    level = torch.rand(count, generator=generator).sub_(0.35).clamp_min_(0).div_(0.65).reshape(-1, 1, 1, 1)
    parts = torch.rand(4, count, 1, 1, 1, generator=generator)
    view = torch.lerp(images, blurred(images, 1.0), level * parts[0])
    coarse = F.interpolate(F.avg_pool2d(view, 2), scale_factor=2.0, mode="bilinear")
    view = torch.lerp(view, coarse, level * parts[1] * 0.8)
    for row in torch.nonzero(torch.rand(count, generator=generator) < 0.2).flatten().tolist():
        view[row] = blocky(view[row], int(torch.randint(35, 95, (), generator=generator)))
    light = 1 + (torch.rand(count, 3, 1, 1, generator=generator) - 0.5) * 0.16 * level
    shift = (torch.rand(count, 1, 1, 1, generator=generator) - 0.5) * 0.10 * level
    fine = torch.randn(images.shape, generator=generator) * 0.05 * level * parts[2]
    wide = torch.randn(count, 3, 16, 16, generator=generator) * 0.05 * level * parts[3]
    wide = F.interpolate(wide, scale_factor=4.0, mode="bilinear")
    return (view * light + shift + fine + wide).clamp_(0, 1)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of pictures (B,C,H,W), the edges repeated."""
    line = torch.exp(-0.5 * (torch.arange(-3, 4) / sigma) ** 2)
    line = (line / line.sum()).expand(images.shape[1], 1, 1, 7)
    across = F.conv2d(F.pad(images, (3, 3, 0, 0), mode="replicate"), line, groups=images.shape[1])
    return F.conv2d(
        F.pad(across, (0, 0, 3, 3), mode="replicate"), line.transpose(2, 3).contiguous(), groups=images.shape[1]
    )


def blocky(image: Tensor, quality: int) -> Tensor:
    """One picture (3,H,W) in [0,1] after JPEG."""
    file = io.BytesIO()
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality)
    with Image.open(file) as read:
        back = np.array(read)
    return torch.from_numpy(back).permute(2, 0, 1).float() / 255
