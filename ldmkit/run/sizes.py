"""Picture sizes: chosen from what the caller gave, padded to the codec's multiple, cropped back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ldmkit.contracts.codec import Codec
from ldmkit.errors import InputError

Size = tuple[int, int]


def choose(asked: Size | None, start: Size | None, plane: Size | None, default: Size | None) -> Size:
    """(height, width) of the pictures: asked for, of the start picture, of the condition planes, or the default.

    Raises:
        InputError: two of them disagree, or there is none.
    """
    named = {"size": asked, "start.image": start, "the condition's picture": plane}
    known = {name: size for name, size in named.items() if size is not None}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name} is {h}x{w}" for name, (h, w) in known.items())
        raise InputError("size-mismatch", f"{listed} (height x width)", where="size", fits="pictures of one size")
    if known:
        return next(iter(known.values()))
    if default is None:
        raise InputError("size-missing", "the model names no default size", where="size", fits="size=(height, width)")
    return default


def padded(size: Size, multiple: int) -> Size:
    """The smallest size that holds `size` and fits the codec."""
    height, width = (-(-side // multiple) * multiple for side in size)
    return height, width


def pad(images: Tensor, multiple: int) -> Tensor:
    """Pictures (B,C,H,W) grown at the bottom and right by repeating their edge, to fit the codec."""
    height, width = padded((images.shape[-2], images.shape[-1]), multiple)
    right, bottom = width - images.shape[-1], height - images.shape[-2]
    return images if right == bottom == 0 else F.pad(images, (0, right, 0, bottom), mode="replicate")


def crop(images: Tensor, size: Size) -> Tensor:
    """Undo `pad`: the top left part of that size."""
    return images[..., : size[0], : size[1]]


def latent_size(size: Size, codec: Codec) -> Size:
    """(h, w) of the latents that hold pictures of a size."""
    height, width = padded(size, codec.multiple)
    return height // codec.factor, width // codec.factor


def check_smallest(size: Size, codec: Codec, smallest: int) -> None:
    """Refuse pictures whose latents have fewer than `smallest` rows or columns, which the network cannot take.

    Raises:
        InputError: naming the smallest size.
    """
    if min(latent_size(size, codec)) < smallest:
        least = (-(-smallest * codec.factor // codec.multiple) - 1) * codec.multiple + 1
        what = f"{size[0]}x{size[1]} pixels are too few: the network halves its maps until nothing is left"
        raise InputError("size-small", what, where="size", fits=f"{least} pixels or more a side")
