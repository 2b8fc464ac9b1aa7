"""Picture with a hole: the condition of models trained for inpainting, in both published channel orders."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from ldmkit import (
    Codec,
    CompositionError,
    Example,
    InputError,
    KnowsRegion,
    Mask,
    Picture,
    Plane,
    SetsSize,
    SignalKind,
    UsesCodec,
    Value,
    check_pictures,
)
from ldmkit.bounds import Width
from ldmkit.run.sizes import pad
from ldmkit_conditioners.image import one_size


class Masked(Value):
    """A picture, and a mask of the same size: 1 (white) where it is to be filled, thresholded at one half."""

    image: Picture
    mask: Mask

    @model_validator(mode="after")
    def _one_size(self) -> Masked:
        if self.image.shape[-2:] != self.mask.shape[-2:]:
            sizes = f"the picture has {tuple(self.image.shape[-2:])} pixels, the mask {tuple(self.mask.shape[-2:])}"
            raise InputError("mask-size", sizes, fits="equal heights and widths")
        return self


class MaskedImageConfig(Value):
    """The defaults are inpainting_big's; SD's: order mask-latent, signed False, hole 0, scaled True, latent_channels 4.

    Args:
        order: order of the channels, [latent, mask] or [mask, latent].
        signed: the mask's values are -1 and 1, else 0 and 1; the larger is the hole.
        inverted: the larger is what is kept.
        hole: value that fills the hole before the picture is encoded: -1 is black, 0 grey; None: the whole picture is
            encoded, and its latent is 0 in the hole (Kandinsky).
        grown: at latent size, the hole covers the neighbours of its positions too, but for those above to the right
            and below to the left (Kandinsky).
        scaled: the latent is in the codec's standardised units; False: in those of its encoder.
    """

    order: Literal["latent-mask", "mask-latent"] = "latent-mask"
    signed: bool = True
    inverted: bool = False
    hole: float | None = Field(default=-1.0, ge=-1, le=1)
    grown: bool = False
    scaled: bool = False
    latent_channels: Width = 3


def _example(level: int, hole: int) -> dict[str, Any]:
    """A grey picture with a hole of `hole` pixels in its corner."""
    mask = np.zeros((32, 32), np.uint8)
    mask[:hole, :hole] = 255
    return {"image": np.full((32, 32, 3), level, np.uint8), "mask": mask}


class MaskedImage(UsesCodec, SetsSize, KnowsRegion):
    """Masked picture through the pipeline's codec, and the mask at latent size (nearest): (B, latent + 1, h, w).

    Both are padded by their edges to fit the codec, as all pictures are; the result keeps what is not masked.
    """

    Config: ClassVar[type[MaskedImageConfig]] = MaskedImageConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example(vary={"grown": [False]}),  # in pictures of a few positions the hole would grow over all of them
        Example({"hole": None, "grown": True, "inverted": True}, (_example(40, 4), _example(200, 8))),
    )
    Input: ClassVar[Any] = Masked
    kind: SignalKind = "plane"
    has_null = False

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim = self.config.latent_channels + 1
        self._codec: tuple[Codec, ...] = ()

    def bind(self, codec: Codec) -> None:
        check_pictures(codec.axes, "a masked-image conditioner")
        if codec.channels != self.config.latent_channels:
            what = f"masked-image encodes to {self.config.latent_channels} channels, the codec to {codec.channels}"
            raise CompositionError("dim-mismatch", what, fits="latent_channels equal to the codec's channels")
        if self._codec and self._codec[0] is not codec:
            what = "this masked-image conditioner encodes with the codec of another pipeline"
            raise CompositionError("bound-elsewhere", what, fits="one of its own for every codec")
        self._codec = (codec,)  # in a tuple, so that its weights are not registered here as well

    def picture_size(self, value: Masked, factor: int) -> tuple[int, int]:
        height, width = value.image.shape[-2:]
        return height, width

    def known(self, value: Masked) -> tuple[Tensor, Tensor]:
        return value.image, (value.mask >= 0.5).float()

    def forward(self, inputs: list[Masked]) -> Plane:
        if not self._codec:
            raise CompositionError("not-bound", "masked-image has no codec yet", fits="bind(codec), as a pipeline does")
        codec = self._codec[0]
        images = one_size([item.image for item in inputs], "masked-image")
        images = pad(images, codec.multiple)
        holes = pad(torch.stack([item.mask for item in inputs]), codec.multiple) >= 0.5
        return Plane(self._join(codec, images.to(codec.device, codec.dtype), holes.to(codec.device)))

    def _join(self, codec: Codec, images: Tensor, holes: Tensor) -> Tensor:
        config = self.config
        latents = codec.encode(images if config.hole is None else torch.where(holes, config.hole, images))
        if not config.scaled:
            latents = codec.raw(latents)
        small = F.interpolate(holes.to(latents.dtype), size=latents.shape[-2:])
        small = grown(small) if config.grown else small
        if config.hole is None:
            latents = latents * (1 - small)
        mask = 1 - small if config.inverted else small
        mask = mask * 2 - 1 if config.signed else mask
        return torch.cat([latents, mask] if config.order == "latent-mask" else [mask, latents], dim=1)


def grown(holes: Tensor) -> Tensor:
    """Holes (B, 1, h, w) of 0 and 1 that also cover six of the eight neighbours of each position."""
    near = holes.new_tensor([[1, 1, 0], [1, 1, 1], [0, 1, 1]])[None, None]
    return (F.conv2d(holes, near, padding=1) > 0).to(holes.dtype)
