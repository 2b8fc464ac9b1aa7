"""The axes of latents: how many positions of a picture, video or vector correspond to one latent position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from ldmkit.errors import CompositionError, InputError

Size: TypeAlias = tuple[int, ...]
"""Positions along each axis: (height, width) of pictures, (frames, height, width) of videos, () of vectors."""


class Axis(NamedTuple):
    """One axis of latents (B, C, *axes).

    Args:
        name: "height", "width", "frames" ...
        factor: downsampling factor, the data positions per latent position.
        multiple: data are padded to a multiple of this before they are encoded; 0 means `factor`.
        causal: the first position is encoded by itself, so that 1 + n * factor positions become 1 + n latents.
    """

    name: str
    factor: int = 1
    multiple: int = 0
    causal: bool = False

    def padded(self, side: int) -> int:
        """The smallest number of positions >= `side` that can be encoded."""
        first, unit = int(self.causal), self.multiple or self.factor
        return first - (first - side) // unit * unit

    def latents(self, side: int) -> int:
        """Latent positions of `side` data positions; `side` must be an encodable number."""
        first = int(self.causal)
        return first + (side - first) // self.factor

    def positions(self, latents: int) -> int:
        """Data positions that `latents` latent positions decode to."""
        first = int(self.causal)
        return first + (latents - first) * self.factor


PICTURE = (Axis("height"), Axis("width"))
VIDEO = (Axis("frames"), *PICTURE)
"""The axes of pictures and of videos; their factors are placeholders."""


def padded_size(size: Sequence[int], axes: Sequence[Axis]) -> Size:
    """The smallest encodable size that is at least `size` along every axis."""
    return tuple(axis.padded(side) for axis, side in zip(axes, size, strict=True))


def latent_sides(size: Sequence[int], axes: Sequence[Axis]) -> Size:
    """The latents' size for data of an encodable size."""
    return tuple(axis.latents(side) for axis, side in zip(axes, size, strict=True))


def decoded_size(latents: Sequence[int], axes: Sequence[Axis]) -> Size:
    """The size that latents of size `latents` decode to."""
    return tuple(axis.positions(side) for axis, side in zip(axes, latents, strict=True))


def frame_size(size: Sequence[int]) -> tuple[int, int]:
    """(height, width) of a picture or of a video's frames: the last two axes, with 1 for a missing one."""
    height, width = (1, 1, *size)[-2:]
    return height, width


def check_axes(size: Size, axes: Sequence[Axis], where: str) -> Size:
    """`size`, checked to have one number per axis.

    Raises:
        InputError: `size-axes`.
    """
    if len(size) != len(axes):
        raise InputError("size-axes", f"got {shown_size(size)}", where=where, fits=wanted_size(axes))
    return size


def check_pictures(axes: Sequence[Axis], who: str) -> None:
    """Refuse a codec whose data are not pictures.

    Raises:
        CompositionError: `rank-mismatch`.
    """
    if len(axes) != 2:
        names = ", ".join(axis.name for axis in axes) or "none"
        what = f"{who} works on pictures, but the codec's data have {len(axes)} axes ({names})"
        raise CompositionError("rank-mismatch", what, fits="a codec for pictures")


def wanted_size(axes: Sequence[Axis]) -> str:
    """The form of a size for these axes, for messages: `(frames, height, width)`."""
    if not axes:
        return "no size, because the model generates vectors"
    return f"({', '.join(axis.name for axis in axes)})" + (" in pixels, or one number" if len(axes) == 2 else "")


def shown_size(size: Sequence[int]) -> str:
    """`64x96`; `()` if there is no axis."""
    return "x".join(map(str, size)) or "()"
