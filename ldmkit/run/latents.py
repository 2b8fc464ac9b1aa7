"""The two ends of a pipeline, guarded: pictures to latents, latents to pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from ldmkit.contracts.arguments import instance_of, numbers_of
from ldmkit.contracts.codec import Codec
from ldmkit.contracts.work import Direction
from ldmkit.errors import InputError
from ldmkit.files.pictures import remark_picture
from ldmkit.models.memory import memory
from ldmkit.run.estimate import check_estimate, estimate_codec, together
from ldmkit.run.guards import check_returned, finite
from ldmkit.run.sizes import Size, crop

OVERSHOOT = 4.0
"""What no picture in [-1, 1] reaches, however a decoder overshoots; pictures in [0, 255] do."""


def check_range(images: Tensor, where: str) -> Tensor:
    """Pictures (B,3,H,W) of floats in about [-1,1]; a decoder's overshoot is let through, other scales are not.

    Raises:
        InputError: `picture-range`, `picture-shape`, and those of `numbers_of`.
    """
    fits = "floats in [-1, 1]"
    images = numbers_of(images, where)
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InputError("picture-shape", f"a batch of shape {tuple(images.shape)}", where=where, fits="(B, 3, H, W)")
    if images.element_size() == 1:  # float8 knows no comparison
        images = images.float()
    if images.numel() and not float(images.abs().amax()) < OVERSHOOT:
        raise InputError("picture-range", f"values up to {float(images.abs().amax()):.4g}", where=where, fits=fits)
    remark_picture(images, where)
    return images


def check_codec(codec: Codec, count: int, size: Size, direction: Direction, allow_large: bool) -> None:
    """Refuse to encode or decode more than the machine has memory for.

    Raises:
        InputError: `too-much-work`, with the estimate.
    """
    if not instance_of(allow_large, bool, "allow_large"):
        where = "images" if direction == "encode" else "latents"
        check_estimate(estimate_codec(codec, count, size, direction), where, False)


def check_latents(codec: Codec, latents: object, allow_large: bool = False) -> None:
    """`check_codec` for what is to be decoded; what is no batch of latents is left to `decode_latents`."""
    if isinstance(latents, Tensor) and latents.ndim == 4 and 0 not in latents.shape:
        size = (latents.shape[-2] * codec.factor, latents.shape[-1] * codec.factor)
        check_codec(codec, len(latents), size, "decode", allow_large)


def encode_pictures(codec: Codec, images: Tensor, noise: Tensor | None = None) -> Tensor:
    """Latents float32 of pictures (B,3,H,W) in [-1,1] that fit the codec.

    Raises:
        RunError: NaN or infinity, or memory exhausted.
    """
    batch = images.to(codec.device, codec.dtype)
    noise = None if noise is None else numbers_of(instance_of(noise, Tensor, "noise"), "noise").to(batch)
    with torch.no_grad(), memory("codec.encode", f"pictures {tuple(batch.shape)}"):
        latents = _in_groups(codec, batch, noise)
    finite(latents, "codec.encode")
    return latents


def _in_groups(codec: Codec, batch: Tensor, noise: Tensor | None) -> Tensor:
    group = together(codec, (batch.shape[-2], batch.shape[-1]), "encode")
    if len(batch) <= group or (noise is not None and len(noise) != len(batch)):
        return _encoded(codec, batch, noise)
    noises = [None] * len(batch) if noise is None else list(torch.split(noise, group))
    pairs = zip(torch.split(batch, group), noises, strict=False)
    return joined([_encoded(codec, part, drawn) for part, drawn in pairs])


def _encoded(codec: Codec, batch: Tensor, noise: Tensor | None) -> Tensor:
    sides = (side // codec.factor for side in batch.shape[-2:])
    shape = (len(batch), codec.channels, *sides)
    return check_returned(codec.encode(batch, noise), (shape,), "codec", codec, "encode").float()


def _decoded(codec: Codec, latents: Tensor) -> Tensor:
    sides = (side * codec.factor for side in latents.shape[-2:])
    shape = (len(latents), 3, *latents.shape[2:-2], *sides)
    return check_returned(codec.decode(latents), (shape,), "codec", codec, "decode").float()


def joined(parts: list[Tensor]) -> Tensor:
    """Parts of a batch as one; the same tensor where there is one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def decode_latents(codec: Codec, latents: Tensor, size: Size | None = None) -> Tensor:
    """Pictures float32 in [0,1] of latents, cropped to `size` (height, width) where given.

    Raises:
        InputError: the latents do not have the codec's channels.
        RunError: NaN or infinity, or memory exhausted.
    """
    fits = f"(B, {codec.channels}, h, w)"
    if not isinstance(latents, Tensor):
        raise InputError("latent-shape", f"a {type(latents).__name__} is no tensor", where="latents", fits=fits)
    latents = numbers_of(latents, "latents")
    if latents.ndim < 4 or latents.shape[1] != codec.channels or 0 in latents.shape:
        raise InputError("latent-shape", f"latents of shape {list(latents.shape)}", where="latents", fits=fits)
    with torch.no_grad(), memory("codec.decode", f"latents {tuple(latents.shape)}"):
        side = codec.factor
        group = together(codec, (latents.shape[-2] * side, latents.shape[-1] * side), "decode")
        parts = torch.split(latents.to(codec.device, codec.dtype), group)
        images = joined([_decoded(codec, part) for part in parts])
    finite(images, "codec.decode")
    images = (images + 1).mul_(0.5).clamp_(0, 1)
    if size is not None and (min(size) < 1 or size[0] > images.shape[-2] or size[1] > images.shape[-1]):
        what = f"latents of {images.shape[-2]}x{images.shape[-1]} pixels cannot be cropped to {size[0]}x{size[1]}"
        raise InputError("size-mismatch", what, where="size")
    return crop(images, size) if size else images
