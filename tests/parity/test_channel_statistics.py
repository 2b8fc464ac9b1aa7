"""Latents scaled and shifted a channel, as published video codecs do it: over pictures, videos and vectors."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLQwenImage, AutoencoderKLWan
from ldmkit_codecs.shapes import restore, standardise

TINY = {"base_dim": 3, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}


@pytest.mark.parametrize("cls", [AutoencoderKLWan, AutoencoderKLQwenImage])
@pytest.mark.parametrize("shape", [(2, 16, 3, 4), (2, 16, 2, 3, 4), (2, 16)])
def test_published_statistics_are_scale_and_shift(cls: type, shape: tuple[int, ...]) -> None:
    config = cls(**TINY, temperal_downsample=[False, True, True]).config
    mean, std = config.latents_mean, config.latents_std
    assert len(set(mean)) == len(set(std)) == 16
    raw = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    over = [1, 16, *[1] * (len(shape) - 2)]
    # what WanPipeline and QwenImagePipeline write: latents / (1 / std) + mean before the decoder
    wanted = (raw - torch.tensor(mean, dtype=torch.float64).view(over)) * (
        1.0 / torch.tensor(std, dtype=torch.float64)
    ).view(over)
    scale, shift = tuple(1.0 / s for s in std), tuple(mean)
    found = standardise(raw, scale, shift)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)  # float64 rounding of a division
    torch.testing.assert_close(restore(found, scale, shift), raw, rtol=1e-12, atol=1e-12)
