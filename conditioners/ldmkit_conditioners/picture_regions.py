"""Regions in which pictures are used: a mask for each picture of an adapter that takes several."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from pydantic import Field, PlainSerializer, PlainValidator
from torch import Tensor

from ldmkit import (
    Codec,
    Example,
    InputError,
    OnGrid,
    Plane,
    SetsSize,
    Signal,
    SignalKind,
    UsesCodec,
    Value,
    check_pictures,
)
from ldmkit.files.pictures import mask_uri, read_mask
from ldmkit_conditioners.image import one_size
from ldmkit_conditioners.several import read_several, schema, write_several

ABSENT = -1.0
"""In the place of a mask that is not there."""


def _examples() -> tuple[Any, ...]:
    ramp = torch.linspace(0, 1, 16 * 16).view(1, 16, 16)
    return (ramp, [1 - ramp, ramp.flip(2)], ramp.flip(1))


def read_masks(raw: Any) -> tuple[Tensor, ...]:
    """One mask or several of one size, read as masks of pictures are: (1, H, W) in [0, 1].

    Raises:
        InputError: `picture-*`; `picture-count`: none, or more than a batch may have; `picture-sizes`.
    """
    masks = read_several(raw, read_mask, "mask")
    one_size(masks, "masks")
    return masks


def write_masks(masks: tuple[Tensor, ...]) -> Any:
    """JSON from which `read_masks` restores exactly these masks."""
    return write_several(masks, mask_uri)


Masks: TypeAlias = Annotated[
    Any, PlainValidator(read_masks), PlainSerializer(write_masks, when_used="json"), schema("mask")
]
"""Pydantic type of one mask or several."""


class PictureRegionsConfig(Value):
    """
    Args:
        count: maximum number of masks.
    """

    count: int = Field(default=8, ge=1, le=256)


class PictureRegions(OnGrid, SetsSize, UsesCodec):
    """Masks at picture resolution, one channel each: (B, count, H, W), from 0, where a picture is not used, to 1.

    Channels without a mask are filled with `ABSENT`, and so are all channels of the null.
    """

    Config: ClassVar[type[PictureRegionsConfig]] = PictureRegionsConfig
    examples: ClassVar[tuple[Example, ...]] = (Example({"count": 2}, _examples()),)
    Input: ClassVar[Any] = Masks
    kind: SignalKind = "plane"

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim = self.config.count
        self._codec: tuple[Codec, ...] = ()

    @classmethod
    def from_text(cls, text: str) -> Any:
        """A path or a data URI, or a JSON list of them."""
        return super().from_text(text) if text.lstrip().startswith("[") else text

    def bind(self, codec: Codec) -> None:
        check_pictures(codec.axes, f"conditioner {type(self).__name__}")
        self._codec = (codec,)

    def picture_size(self, value: tuple[Tensor, ...], factor: int) -> tuple[int, int]:
        return value[0].shape[-2], value[0].shape[-1]

    def forward(self, inputs: list[tuple[Tensor, ...]]) -> Plane:
        one_size([masks[0] for masks in inputs], "regions")
        stacks = [torch.cat(masks) for masks in inputs]
        for stack in stacks:
            if len(stack) > self.dim:
                fits = f"at most {self.dim}, or an adapter attached with regions={len(stack)}"
                raise InputError("region-count", f"{len(stack)} masks", where="regions", fits=fits)
        return Plane(torch.stack([F.pad(s, (0, 0, 0, 0, 0, self.dim - len(s)), value=ABSENT) for s in stacks]))

    def null(self, like: Signal) -> Plane:
        assert isinstance(like, Plane)
        return Plane(torch.full_like(like.value, ABSENT))

    def on_grid(self, inputs: list[tuple[Tensor, ...]], grid: tuple[int, int]) -> Plane:
        """`forward`, with masks padded as the codec pads pictures.

        Raises:
            InputError: `region-size`: their size differs from the picture's.
        """
        if not self._codec:
            return self.forward(inputs)
        axes = self._codec[0].axes[-2:]
        height, width = inputs[0][0].shape[-2:]
        size = tuple(axis.padded(side) for axis, side in zip(axes, (height, width), strict=True))
        if tuple(axis.latents(side) for axis, side in zip(axes, size, strict=True)) != grid:
            whole = " x ".join(str(axis.positions(cells)) for axis, cells in zip(axes, grid, strict=True))
            what = f"a mask has {height} x {width} pixels, the picture about {whole}"
            raise InputError("region-size", what, where="region", fits="masks of the picture's size")
        beyond = (0, size[1] - width, 0, size[0] - height)
        return self.forward([tuple(F.pad(m, beyond, mode="replicate") for m in masks) for masks in inputs])
