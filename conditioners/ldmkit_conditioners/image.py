"""Pictures as planes: the low-resolution picture of super-resolution, and the hint of a ControlNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
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


class EnlargingConfig(Value):
    """
    Args:
        enlarge: how many times the height and width; 1 where latents have the small picture's size.
        method: of enlarging.
        align_corners: of "bilinear": corner pixels keep their places (DeepFloyd IF).
        antialias: of "bicubic": its kernel is that of Pillow, with a = -0.5, and not that with a = -0.75 (Karlo).
    """

    enlarge: int = Field(default=1, ge=1, le=16)
    method: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    align_corners: bool = False
    antialias: bool = False

    @model_validator(mode="after")
    def _corners(self) -> Self:
        if self.align_corners and self.method != "bilinear":
            what = f"align_corners with {self.method!r}"
            raise InputError("align-corners", what, where="align_corners", fits="method: bilinear")
        if self.antialias and self.method != "bicubic":
            raise InputError("antialias", f"antialias with {self.method!r}", where="antialias", fits="method: bicubic")
        return self

    def enlarged(self, images: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, enlarge h, enlarge w)."""
        if self.enlarge == 1:
            return images
        more: dict[str, Any] = {} if self.method == "nearest" else {"align_corners": self.align_corners}
        if self.antialias:
            more["antialias"] = True
        return F.interpolate(images, scale_factor=self.enlarge, mode=self.method, **more)


class ImagePlane(PictureInput, SetsSize):
    """A picture in [-1, 1] at latent resolution: (B, 3, h, w); enlarged only if the config says so.

    The condition of the paper's super-resolution models, whose latents have the size of the small picture, and of
    guided-diffusion's upsamplers, which enlarge it.
    """

    Config: ClassVar[type[EnlargingConfig]] = EnlargingConfig
    config: EnlargingConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"enlarge": 2, "method": "bicubic", "antialias": True}),
    )
    Input: ClassVar[Any] = Picture
    kind: SignalKind = "plane"
    dim = 3
    has_null = False

    def picture_size(self, value: Tensor, factor: int) -> tuple[int, int]:
        times = self.config.enlarge * factor
        return value.shape[-2] * times, value.shape[-1] * times

    def forward(self, inputs: list[Tensor]) -> Plane:
        return Plane(self.config.enlarged(one_size(inputs, "image")))


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
