"""Pictures as planes: the low-resolution picture of super-resolution, and the hint of a ControlNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ldmkit import Example, HintPicture, InputError, Picture, Plane, SetsSize, SignalKind, Value


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
    """Mixin for conditioners whose input is one picture file: a command-line argument is its path."""

    @classmethod
    def from_text(cls, text: str) -> Any:
        """A path or a data URI, unchanged."""
        return text


class ImagePlane(PictureInput, SetsSize):
    """A picture in [-1, 1] at latent resolution, without resizing: (B, 3, h, w).

    The condition of the paper's super-resolution models, whose latents have the size of the small picture.
    """

    Input: ClassVar[Any] = Picture
    kind: SignalKind = "plane"
    dim = 3
    has_null = False

    def picture_size(self, value: Tensor, factor: int) -> tuple[int, int]:
        return value.shape[-2] * factor, value.shape[-1] * factor

    def forward(self, inputs: list[Tensor]) -> Plane:
        return Plane(one_size(inputs, "image"))


class HintConfig(Value):
    """A control picture.

    Args:
        channels: 3 for colours; 1 for brightness only.
    """

    channels: Literal[1, 3] = 3


class Hint(PictureInput, SetsSize):
    """A control picture in [0, 1], at picture resolution: (B, channels, H, W), for a ControlNet. The null is zeros.

    Pixels that are `ldmkit.MASKED` in the picture become -1, which for inpainting ControlNets marks pixels to fill.
    Brightness is that of ITU-R 601-2, as Pillow's mode L has it.
    """

    Config = HintConfig
    config: HintConfig
    Input: ClassVar[Any] = HintPicture
    kind: SignalKind = "plane"
    dim = 3
    examples = (Example(), Example({"channels": 1}))

    def __init__(self, config: HintConfig | None = None):
        super().__init__(config)
        self.dim = self.config.channels

    def example(self, size: tuple[int, int]) -> Tensor:
        return torch.zeros(3, *size)

    def picture_size(self, value: Tensor, factor: int) -> tuple[int, int]:
        return value.shape[-2], value.shape[-1]

    def forward(self, inputs: list[Tensor]) -> Plane:
        hint = (one_size(inputs, "hint") + 1) / 2
        return Plane(hint if self.dim == 3 else _brightness(hint))


def _brightness(colours: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W): exact for grey pixels."""
    red, green, blue = colours.unbind(1)
    return (green + 0.299 * (red - green) + 0.114 * (blue - green)).unsqueeze(1)
