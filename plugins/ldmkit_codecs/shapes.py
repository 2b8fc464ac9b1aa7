"""Checks of inputs that all codecs share, and the affine map between raw and standardised latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ldmkit import InputError

PerChannel: TypeAlias = float | tuple[float, ...]
"""One number for all latent channels, or one per channel."""


def check_images(images: Tensor, channels: int, multiple: int) -> None:
    """Check a batch of pictures (B, channels, H, W).

    Raises:
        InputError: not four axes, wrong channels, empty, or a size that is not a multiple (naming the nearest that
            fits).
    """
    _check_batch(images, channels, "images")
    height, width = images.shape[-2:]
    if height % multiple or width % multiple:
        near_h, near_w = nearest(height, multiple), nearest(width, multiple)
        raise InputError(
            "size-multiple",
            f"height {height} x width {width} are not multiples of {multiple}",
            where="images",
            fits=f"nearest: height {near_h} x width {near_w}",
        )


def check_latents(latents: Tensor, channels: int) -> None:
    """Check a batch of latents (B, channels, h, w).

    Raises:
        InputError: not four axes, wrong channels, or empty.
    """
    _check_batch(latents, channels, "latents")


def _check_batch(value: Tensor, channels: int, where: str) -> None:
    fits = f"(batch, {channels}, height, width)"
    if value.ndim != 4 or value.shape[1] != channels or 0 in value.shape:
        raise InputError("shape", f"got shape {tuple(value.shape)}", where=where, fits=fits)
    if not value.is_floating_point():
        raise InputError("dtype", f"got {value.dtype}", where=where, fits="a floating dtype")


def check_noise(noise: Tensor, shape: Sequence[int]) -> None:
    """Check that posterior noise has the latents' shape.

    Raises:
        InputError: another shape.
    """
    if tuple(noise.shape) != tuple(shape):
        raise InputError("shape", f"got shape {tuple(noise.shape)}", where="noise", fits=f"{tuple(shape)}")


def nearest(size: int, multiple: int) -> int:
    """The nearest positive multiple; the larger one if two are equally near."""
    return max(multiple, (size + multiple // 2) // multiple * multiple)


def standardise(raw: Tensor, scale: PerChannel | None, shift: PerChannel) -> Tensor:
    """(raw - shift) * scale, per channel; the same tensor if scale and shift are neutral."""
    if shift != 0:
        raw = raw - _channels(shift, raw)
    return raw if scale is None or scale == 1 else raw * _channels(scale, raw)


def restore(latents: Tensor, scale: PerChannel | None, shift: PerChannel) -> Tensor:
    """latents / scale + shift, per channel: the inverse of `standardise`."""
    if scale is not None and scale != 1:
        latents = latents * (1.0 / scale) if isinstance(scale, (int, float)) else latents / _channels(scale, latents)
    return latents if shift == 0 else latents + _channels(shift, latents)


def _channels(values: PerChannel, like: Tensor) -> Tensor | float:
    if isinstance(values, (int, float)):
        return values
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, *[1] * (like.ndim - 2))


def check_per_channel(name: str, values: PerChannel | None, channels: int) -> None:
    """Check a config's scale or shift: as many numbers as channels, and no scale of 0.

    Raises:
        ValueError: for pydantic to report.
    """
    if values is None:
        return
    numbers = (values,) if isinstance(values, (int, float)) else values
    if not isinstance(values, (int, float)) and len(values) != channels:
        raise ValueError(f"{name} has {len(values)} numbers for {channels} latent channels")
    if name == "scale" and any(v == 0 for v in numbers):
        raise ValueError("scale must not be 0")


def held_dtype(dtype: torch.dtype, force_upcast: bool) -> torch.dtype:
    """The dtype of the weights if `dtype` is requested: float32 instead of a float16 that would overflow."""
    return torch.float32 if force_upcast and dtype == torch.float16 else dtype


def without_upcast(data: dict[str, Any]) -> dict[str, Any]:
    """A config's data without a `force_upcast` of False, so that specs older than this field keep their hash."""
    if data.get("force_upcast") is False:
        del data["force_upcast"]
    return data
