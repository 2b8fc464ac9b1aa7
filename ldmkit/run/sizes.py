"""Sizes of pictures and other data: selection, padding to fit the codec, and cropping."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ldmkit.contracts.axes import Axis, check_axes, latent_sides, padded_size, shown_size
from ldmkit.contracts.axes import Size as Size
from ldmkit.contracts.codec import Codec
from ldmkit.errors import InputError


def choose(asked: Size | None, start: Size | None, plane: Size | None, default: Size | None, codec: Codec) -> Size:
    """The size of the data: the requested size, that of the start, that of condition planes, or the default.

    A plane's size is (height, width); any axes before these are taken from the others.

    Raises:
        InputError: two of them disagree, or there is none.
    """
    if not codec.axes:
        return check_axes(asked or (), codec.axes, "size")
    whole = next((size for size in (asked, start, default) if size is not None), ())
    if plane is not None and len(plane) < len(whole):
        plane = (*whole[: -len(plane)], *plane)
    named = {"size": asked, "start.image": start, "the condition's picture": plane}
    known = {name: size for name, size in named.items() if size is not None}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name} is {shown_size(size)}" for name, size in known.items())
        order = " x ".join(axis.name for axis in codec.axes)
        raise InputError("size-mismatch", f"{listed} ({order})", where="size", fits="the same size for all")
    size = next(iter(known.values()), default)
    if size is None:
        fits = f"size=({', '.join(axis.name for axis in codec.axes)})"
        raise InputError("size-missing", "the model has no default size", where="size", fits=fits)
    return check_axes(size, codec.axes, "size")


def padded(size: Size, codec: Codec) -> Size:
    """The smallest encodable size that is at least `size` along every axis."""
    return padded_size(size, codec.axes)


def pad_to(data: Tensor, size: Size) -> Tensor:
    """Data (B,C,*axes) padded to a size at the end of each axis by repeating the last position."""
    grown = [(0, side - own) for side, own in zip(size, data.shape[2:], strict=True)]
    if all(pair == (0, 0) for pair in grown):
        return data
    return F.pad(data, [side for pair in reversed(grown) for side in pair], mode="replicate")


def pad(images: Tensor, multiple: int) -> Tensor:
    """Pictures (B,C,H,W) padded at the bottom and right by repeating their edge, to multiples of a number."""
    axis = Axis("", multiple)
    return pad_to(images, (axis.padded(images.shape[-2]), axis.padded(images.shape[-1])))


def fitted(data: Tensor, codec: Codec) -> Tensor:
    """Data (B,C,*axes) padded to fit the codec."""
    return pad_to(data, padded(tuple(data.shape[2:]), codec))


def crop(data: Tensor, size: Size) -> Tensor:
    """Undo `pad_to` by cropping the last axes to `size`."""
    for axis, side in enumerate(size, data.ndim - len(size)):
        data = data.narrow(axis, 0, min(side, data.shape[axis]))
    return data


def latent_size(size: Size, codec: Codec) -> Size:
    """The size of the latents for data of a size: (h, w) for pictures."""
    return latent_sides(padded(size, codec), codec.axes)


def check_smallest(size: Size, codec: Codec, smallest: int) -> None:
    """Refuse pictures whose latents have fewer than `smallest` rows or columns, which the network cannot process.

    Raises:
        InputError: `size-small`, with the smallest size.
    """
    if min(latent_size(size, codec)[-2:], default=smallest) < smallest:
        axis = codec.axes[-1]
        unit = axis.multiple or axis.factor
        least = (-(-smallest * axis.factor // unit) - 1) * unit + 1
        what = f"{shown_size(size)} pixels are too few for the network's downsampling"
        raise InputError("size-small", what, where="size", fits=f"at least {least} pixels per side")
