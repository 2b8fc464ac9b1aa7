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
    fits = f"(B, {codec.channels}, h, w)"
    if not isinstance(latents, Tensor):
        raise InputError("latent-shape", f"a {type(latents).__name__} is no tensor", where="latents", fits=fits)
    if latents.ndim < 4 or latents.shape[1] != codec.channels or 0 in latents.shape:
        raise InputError("latent-shape", f"latents of shape {list(latents.shape)}", where="latents", fits=fits)
    with torch.no_grad(), memory("codec.decode", f"latents {tuple(latents.shape)}"):
        images = codec.decode(latents.to(codec.device, codec.dtype)).float()
    finite(images, "codec.decode")
    images = (images + 1).mul_(0.5).clamp_(0, 1)
    if size is not None and (min(size) < 1 or size[0] > images.shape[-2] or size[1] > images.shape[-1]):
        what = f"latents of {images.shape[-2]}x{images.shape[-1]} pixels cannot be cropped to {size[0]}x{size[1]}"
        raise InputError("size-mismatch", what, where="size")
    return crop(images, size) if size else images
