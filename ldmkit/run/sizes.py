"""Sizes of pictures and other data: chosen from what the caller gave, padded to fit the codec, cropped back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ldmkit.contracts.axes import Axis, check_axes, latent_sides, padded_size, shown_size
from ldmkit.contracts.axes import Size as Size
from ldmkit.contracts.codec import Codec
from ldmkit.errors import InputError


def choose(asked: Size | None, start: Size | None, plane: Size | None, default: Size | None, codec: Codec) -> Size:
    """The data's size: asked for, of what is started from, of the condition planes, or the default.

    A plane is (height, width); the axes in front of these are as the others say.

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
        raise InputError("size-mismatch", f"{listed} ({order})", where="size", fits="pictures of one size")
    size = next(iter(known.values()), default)
    if size is None:
        fits = f"size=({', '.join(axis.name for axis in codec.axes)})"
        raise InputError("size-missing", "the model names no default size", where="size", fits=fits)
    return check_axes(size, codec.axes, "size")


def padded(size: Size, codec: Codec) -> Size:
    """The smallest size that holds `size` and fits the codec."""
    return padded_size(size, codec.axes)


def pad_to(data: Tensor, size: Size) -> Tensor:
    """Data (B,C,*axes) grown to a size at the end of each axis by repeating what is last there."""
    grown = [(0, side - own) for side, own in zip(size, data.shape[2:], strict=True)]
    if all(pair == (0, 0) for pair in grown):
        return data
    return F.pad(data, [side for pair in reversed(grown) for side in pair], mode="replicate")


def pad(images: Tensor, multiple: int) -> Tensor:
    """Pictures (B,C,H,W) grown at the bottom and right by repeating their edge, to multiples of a number."""
    axis = Axis("", multiple)
    return pad_to(images, (axis.padded(images.shape[-2]), axis.padded(images.shape[-1])))


def fitted(data: Tensor, codec: Codec) -> Tensor:
    """Data (B,C,*axes) padded to fit the codec."""
    return pad_to(data, padded(tuple(data.shape[2:]), codec))


def crop(data: Tensor, size: Size) -> Tensor:
    """Undo `pad_to`: the first part of each of the last axes."""
    for axis, side in enumerate(size, data.ndim - len(size)):
        data = data.narrow(axis, 0, min(side, data.shape[axis]))
    return data


def latent_size(size: Size, codec: Codec) -> Size:
    """The size of the latents that hold data of a size: (h, w) of pictures."""
    return latent_sides(padded(size, codec), codec.axes)


def check_smallest(size: Size, codec: Codec, smallest: int) -> None:
    """Refuse pictures whose latents have fewer than `smallest` rows or columns, which the network cannot take.

    Raises:
        InputError: naming the smallest size.
    """
    if min(latent_size(size, codec)[-2:], default=smallest) < smallest:
        axis = codec.axes[-1]
        unit = axis.multiple or axis.factor
        least = (-(-smallest * axis.factor // unit) - 1) * unit + 1
        what = f"{shown_size(size)} pixels are too few: the network halves its maps until nothing is left"
        raise InputError("size-small", what, where="size", fits=f"{least} pixels or more a side")
