"""Pictures as planes: the low-resolution picture of super-resolution, and the hint of a ControlNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ldmkit import HintPicture, InputError, Picture, Plane, SetsSize, SignalKind


def one_size(pictures: Sequence[Tensor], where: str) -> Tensor:
    """Pictures of one batch, stacked.

    Raises:
        InputError: their sizes differ.
    """
    sizes = {tuple(picture.shape[-2:]) for picture in pictures}
    if len(sizes) > 1:
        shown = ", ".join(f"{h} x {w}" for h, w in sorted(sizes))
        raise InputError(
            "picture-sizes", f"heights and widths differ within a batch: {shown}", where=where, fits="one size"
        )
    return torch.stack(list(pictures))


class PictureInput:
    """Mixin of conditioners whose input is one picture file: a command-line argument is its path."""

    @classmethod
    def from_text(cls, text: str) -> Any:
        """The path, or a data URI, as it is."""
        return text


class ImagePlane(PictureInput, SetsSize):
    """A picture as it is, in [-1, 1], at latent resolution: (B, 3, h, w). It is never resized.

    The condition of the paper's super-resolution models, whose latent has the size of the small picture.
    """

    Input: ClassVar[Any] = Picture
    kind: SignalKind = "plane"
    dim = 3
    has_null = False

    def picture_size(self, value: Tensor, factor: int) -> tuple[int, int]:
        return value.shape[-2] * factor, value.shape[-1] * factor

    def forward(self, inputs: list[Tensor]) -> Plane:
        return Plane(one_size(inputs, "image"))


class Hint(PictureInput, SetsSize):
    """A control picture in [0, 1], at picture resolution: (B, 3, H, W), for a ControlNet. The null is zeros.

    Pixels that are `ldmkit.MASKED` in the picture are -1, as inpainting ControlNets read what is to be filled.
    """

    Input: ClassVar[Any] = HintPicture
    kind: SignalKind = "plane"
    dim = 3

    def example(self, size: tuple[int, int]) -> Tensor:
        return torch.zeros(3, *size)

    def picture_size(self, value: Tensor, factor: int) -> tuple[int, int]:
        return value.shape[-2], value.shape[-1]

    def forward(self, inputs: list[Tensor]) -> Plane:
        return Plane((one_size(inputs, "hint") + 1) / 2)
