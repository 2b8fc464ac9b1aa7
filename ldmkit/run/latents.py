"""Checked encoding and decoding: pictures (or other data) to latents, and latents to pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.arguments import instance_of, list_of, numbers_of
from ldmkit.contracts.axes import decoded_size, latent_sides, shown_size
from ldmkit.contracts.codec import Codec
from ldmkit.contracts.work import Direction
from ldmkit.errors import InputError
from ldmkit.files.picture_ranges import remark_picture
from ldmkit.files.pictures import read_picture
from ldmkit.models.memory import memory
from ldmkit.models.residence import in_use
from ldmkit.run.estimate import check_estimate, estimate_codec, together
from ldmkit.run.guards import check_returned, finite
from ldmkit.run.noise import Noise
from ldmkit.run.sizes import Size, crop

OVERSHOOT = 4.0
"""Limit of picture values, above any overshoot of a decoder for pictures in [-1, 1], but below those in [0, 255]."""


def check_range(images: Tensor, where: str) -> Tensor:
    """Pictures (B,3,H,W) of floats, checked to be in about [-1,1]; a decoder's overshoot is accepted.

    Raises:
        InputError: `picture-range`, `picture-shape`, and as `numbers_of`.
    """
    images = numbers_of(images, where)
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InputError("picture-shape", f"a batch of shape {tuple(images.shape)}", where=where, fits="(B, 3, H, W)")
    return _in_range(images, where)


def check_data(codec: Codec, data: Tensor, where: str) -> Tensor:
    """A batch (B,data_channels,*axes) of a codec's data, checked to be floats, in about [-1,1] if they are colours.

    Raises:
        InputError: `data-shape`, `picture-range`, and as `numbers_of`.
    """
    if len(codec.axes) == 2:
        return check_range(data, where)
    data = numbers_of(data, where)
    if data.ndim != 2 + len(codec.axes) or data.shape[1] != codec.data_channels or 0 in data.shape:
        fits = shape_of("B", codec.data_channels, *(axis.name for axis in codec.axes))
        raise InputError("data-shape", f"a batch of shape {tuple(data.shape)}", where=where, fits=fits)
    return _in_range(data, where) if codec.visual else data


def batch_of(codec: Codec, given: Any) -> Tensor:
    """A batch of a codec's data from the argument of `Pipeline.encode`: pictures of any type, or a tensor.

    Raises:
        InputError: `data-shape`, `picture-*`, `wrong-kind`.
    """
    if len(codec.axes) != 2:
        return check_data(codec, instance_of(given, Tensor, "images"), "images")
    if isinstance(given, Tensor) and given.ndim == 4:
        return check_range(given, "images")
    pictures = list_of(given, "images", "picture-type", "pictures") if isinstance(given, (list, tuple)) else [given]
    return stack([read_picture(image, f"images[{i}]") for i, image in enumerate(pictures)])


def stack(images: Sequence[Tensor]) -> Tensor:
    """Pictures of one size as a batch.

    Raises:
        InputError: there are none, or their sizes differ.
    """
    sizes = sorted({tuple(image.shape[-2:]) for image in images})
    if len(sizes) != 1:
        shown = ", ".join(f"{h}x{w}" for h, w in sizes) or "none"
        raise InputError("picture-sizes", f"pictures of a batch must have one size, got {shown}", where="images")
    return torch.stack(list(images))


def _in_range(images: Tensor, where: str) -> Tensor:
    if images.element_size() == 1:  # float8 does not support comparisons
        images = images.float()
    if images.numel() and not float(images.abs().amax()) < OVERSHOOT:
        fits = "floats in [-1, 1]"
        raise InputError("picture-range", f"values up to {float(images.abs().amax()):.4g}", where=where, fits=fits)
    remark_picture(images, where)
    return images


def shape_of(*sides: object) -> str:
    """`(B, 4, h, w)`."""
    return f"({', '.join(map(str, sides))})"


def check_codec(codec: Codec, count: int, size: Size, direction: Direction, allow_large: bool) -> None:
    """Refuse to encode or decode more than fits in memory, unless `allow_large`.

    Raises:
        InputError: `too-much-work`, with the estimate.
    """
    if not instance_of(allow_large, bool, "allow_large"):
        where = "images" if direction == "encode" else "latents"
        check_estimate(estimate_codec(codec, count, size, direction), where, False)


def check_latents(codec: Codec, latents: object, allow_large: bool = False) -> None:
    """`check_codec` for decoding.

    Raises:
        InputError: `too-much-work`, unless allowed, and as `latents_for`.
    """
    found = latents_for(codec, latents)
    check_codec(codec, len(found), decoded_size(found.shape[2:], codec.axes), "decode", allow_large)


def latents_for(codec: Codec, latents: object) -> Tensor:
    """`latents`, checked to be floats (B, channels, *axes) that fit the codec.

    Raises:
        InputError: `latent-shape`, and as `numbers_of`.
    """
    fits = shape_of("B", codec.channels, *_letters(codec))
    if not isinstance(latents, Tensor):
        raise InputError("latent-shape", f"a {type(latents).__name__} is not a tensor", where="latents", fits=fits)
    latents = numbers_of(latents, "latents")
    if latents.ndim != 2 + len(codec.axes) or latents.shape[1] != codec.channels or 0 in latents.shape:
        raise InputError("latent-shape", f"latents of shape {list(latents.shape)}", where="latents", fits=fits)
    return latents


def encode_pictures(codec: Codec, images: Tensor, noise: Tensor | None = None) -> Tensor:
    """Float32 latents of pictures (B,3,H,W) in [-1,1], or of other data, of an encodable size.

    Raises:
        RunError: NaN or infinity, or out of memory.
    """
    batch = images.to(codec.device, codec.dtype)
    noise = None if noise is None else numbers_of(instance_of(noise, Tensor, "noise"), "noise").to(batch)
    with torch.no_grad(), in_use([codec]), memory("codec.encode", f"pictures {tuple(batch.shape)}"):
        latents = _in_groups(codec, batch, noise)
    finite(latents, "codec.encode")
    return latents


def _in_groups(codec: Codec, batch: Tensor, noise: Tensor | None) -> Tensor:
    group = together(codec, tuple(batch.shape[2:]), "encode")
    if len(batch) <= group or (noise is not None and len(noise) != len(batch)):
        return _encoded(codec, batch, noise)
    noises = [None] * len(batch) if noise is None else list(torch.split(noise, group))
    pairs = zip(torch.split(batch, group), noises, strict=False)
    return joined([_encoded(codec, part, drawn) for part, drawn in pairs])


def _encoded(codec: Codec, batch: Tensor, noise: Tensor | None) -> Tensor:
    shape = (len(batch), codec.channels, *latent_sides(batch.shape[2:], codec.axes))
    return check_returned(codec.encode(batch, noise), (shape,), "codec", codec, "encode").float()


def decoded(codec: Codec, latents: Tensor, seeds: Sequence[int]) -> Tensor:
    """The float32 output of a codec for latents in its dtype; differentiable. The noise of a decoder that draws noise
    depends only on each row's seed, not on other rows.

    Raises:
        RunError: `bad-return`.
    """
    shape = (len(latents), codec.data_channels, *decoded_size(latents.shape[2:], codec.axes))
    with in_use([codec]):
        drawn = codec.decode_with(latents, decode_noise(seeds, shape[1:], latents))
    return check_returned(drawn, (shape,), "codec", codec, "decode").float()


def decode_noise(seeds: Sequence[int], shape: Sequence[int], like: Tensor) -> Callable[[int], Tensor]:
    """Noise for a decoder: index -> unit normal (B, *shape), from the stream "decode" of each row's seed."""
    noise = Noise(seeds, shape, like.device)
    return lambda index: noise(index, "decode").to(like.dtype)


def seeds_of_rows(seeds: Sequence[int], rows: int, where: str = "seeds") -> tuple[int, ...]:
    """One seed per row; fewer seeds are repeated, for one seed for all rows or several views of a batch.

    Raises:
        InputError: `batch-mismatch`.
    """
    if rows % len(seeds):
        what = f"{len(seeds)} seeds for {rows} rows"
        raise InputError("batch-mismatch", what, where=where, fits="one seed, or one for each row")
    return tuple(seeds) * (rows // len(seeds))


def joined(parts: list[Tensor]) -> Tensor:
    """Parts of a batch concatenated; a single part is returned unchanged."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def decode_latents(codec: Codec, latents: Tensor, size: Size | None = None, *, seeds: Sequence[int] = (0,)) -> Tensor:
    """Float32 pictures in [0,1] decoded from latents, cropped to `size` (height, width) if given.

    Videos are (B,3,T,H,W), also in [0,1]; other data are returned as the codec decodes them.

    Args:
        seeds: seeds of a decoder that draws noise; one for all rows, or one per row.

    Raises:
        InputError: the latents do not fit the codec.
        RunError: NaN or infinity, or out of memory.
    """
    latents = latents_for(codec, latents)
    whole = decoded_size(latents.shape[2:], codec.axes)
    drawn = seeds_of_rows(seeds, len(latents))
    with torch.no_grad(), in_use([codec]), memory("codec.decode", f"latents {tuple(latents.shape)}"):
        group = together(codec, whole, "decode")
        parts = torch.split(latents.to(codec.device, codec.dtype), group)
        images = joined([decoded(codec, part, drawn[i * group :][: len(part)]) for i, part in enumerate(parts)])
    finite(images, "codec.decode")
    if codec.visual:
        images = (images + 1).mul_(0.5).clamp_(0, 1)
    if size is None:
        return images
    if len(size) != len(whole) or any(not 1 <= side <= most for side, most in zip(size, whole, strict=True)):
        what = f"latents of {shown_size(whole)} pixels cannot be cropped to {shown_size(size)}"
        raise InputError("size-mismatch", what, where="size")
    return crop(images, size)


def _letters(codec: Codec) -> list[str]:
    return ["h", "w"] if len(codec.axes) == 2 else [axis.name for axis in codec.axes]
