"""The two ends of a pipeline, guarded: pictures to latents, latents to pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from ldmkit.contracts import Codec
from ldmkit.errors import InputError
from ldmkit.guards import finite, memory
from ldmkit.sizes import Size, crop


def encode_pictures(codec: Codec, images: Tensor, noise: Tensor | None = None) -> Tensor:
    """Latents float32 of pictures (B,3,H,W) in [-1,1] that fit the codec.

    Raises:
        RunError: NaN or infinity, or memory exhausted.
    """
    batch = images.to(codec.device, codec.dtype)
    with torch.no_grad(), memory("codec.encode", f"pictures {tuple(batch.shape)}"):
        latents = codec.encode(batch, noise).float()
    finite(latents, "codec.encode")
    return latents


def decode_latents(codec: Codec, latents: Tensor, size: Size | None = None) -> Tensor:
    """Pictures float32 in [0,1] of latents, cropped to `size` (height, width) where given.

    Raises:
        InputError: the latents do not have the codec's channels.
        RunError: NaN or infinity, or memory exhausted.
    """
    if latents.ndim < 4 or latents.shape[1] != codec.channels:
        fits = f"(B, {codec.channels}, h, w)"
        raise InputError("latent-shape", f"latents of shape {list(latents.shape)}", where="latents", fits=fits)
    with torch.no_grad(), memory("codec.decode", f"latents {tuple(latents.shape)}"):
        images = codec.decode(latents.to(codec.device, codec.dtype)).float()
    finite(images, "codec.decode")
    images = (images + 1).mul_(0.5).clamp_(0, 1)
    return crop(images, size) if size else images
