"""Labelled boxes: the input type that the layout conditioners share."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import (
    ConfigDict,
    FailFast,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ldmkit import InputError, Value, list_of
from ldmkit.contracts.value import parse
from ldmkit_conditioners.label import ClassInput, class_number

EDGE = 1e-6
"""How far a box may extend beyond the picture's edge, to allow for rounding."""

Four: TypeAlias = tuple[float, float, float, float]
BoxFormat: TypeAlias = Literal["xyxy", "xywh", "cxcywh"]


class Rect(NamedTuple):
    """Top-left corner and size, relative to the picture: x to the right, y down, all in [0, 1]."""

    x: float
    y: float
    w: float
    h: float

    @property
    def corners(self) -> Four:
        """(x0, y0, x1, y1)."""
        return self.x, self.y, self.x + self.w, self.y + self.h

    def flipped(self) -> Rect:
        """Mirrored left to right."""
        return Rect(1 - (self.x + self.w), self.y, self.w, self.h)


def rect(box: Four, form: BoxFormat, size: tuple[int, int] | None = None) -> Rect:
    """Four numbers as a relative rectangle.

    Args:
        box: in the given format; in pixels if `size` is given.
        size: (height, width) of the picture that pixel boxes refer to.

    Raises:
        InputError: NaN, inverted, empty, or outside the picture.
    """
    if not all(math.isfinite(v) for v in box):
        raise InputError("box-not-finite", f"box {list(box)}", fits="four finite numbers")
    if size is not None:
        box = (box[0] / size[1], box[1] / size[0], box[2] / size[1], box[3] / size[0])
    a, b, c, d = box
    if form == "xyxy":
        if c < a or d < b:
            fits = "x0 < x1 and y0 < y1; say format 'xywh' if the last two are width and height"
            raise InputError("box-inverted", f"box {list(box)} ends before it starts", fits=fits)
        made = Rect(a, b, c - a, d - b)
    else:
        if c < 0 or d < 0:
            raise InputError("box-inverted", f"box {list(box)} has a negative size", fits="a width and height > 0")
        made = Rect(a, b, c, d) if form == "xywh" else Rect(a - c / 2, b - d / 2, c, d)
    if made.w <= 0 or made.h <= 0:
        raise InputError("box-empty", f"box {list(box)} has no area", fits="a width and height > 0")
    x0, y0, x1, y1 = made.corners
    if min(x0, y0) < -EDGE or max(x1, y1) > 1 + EDGE:
        fits = "corners in [0, 1]; for pixel boxes give normalised=false and size=[height, width]"
        raise InputError("box-range", f"the corners of box {list(box)} are ({x0:g}, {y0:g}, {x1:g}, {y1:g})", fits=fits)
    return made


class Box(Value):
    """One object of a layout.

    Args:
        label: class number, or name if the model has names.
        box: four numbers in `format`: corners, corner and size, or centre and size.
        normalised: relative to the picture ([0, 1]); False: pixels of a picture of `size` (height, width).
        group_of, occluded, depiction, inside: attributes as OpenImages annotates them.
    """

    label: ClassInput
    format: BoxFormat = "xyxy"
    normalised: bool = True
    size: tuple[int, int] | None = Field(default=None, description="(height, width) that pixel boxes refer to")
    box: tuple[float, float, float, float]
    group_of: bool = False
    occluded: bool = False
    depiction: bool = False
    inside: bool = False

    model_config = ConfigDict(allow_inf_nan=True)

    @field_validator("box")
    @classmethod
    def _sound(cls, box: Four, info: ValidationInfo) -> Four:
        if not {"format", "normalised", "size"} <= info.data.keys():
            return box  # another field is invalid, which is reported
        size, normalised = info.data["size"], info.data["normalised"]
        if normalised != (size is None) or (size is not None and min(size) < 1):
            fits = "pixel boxes: normalised=false and size=[height, width]; others: neither"
            raise InputError("box-size", f"normalised={normalised} with size {size}", fits=fits)
        rect(box, info.data["format"], size)
        return box

    @property
    def rect(self) -> Rect:
        """The box relative to the picture."""
        return rect(self.box, self.format, self.size)


EXAMPLE = {"label": 1, "box": [0.1, 0.2, 0.5, 0.9]}
"""A raw box, for examples of conditioners that read layouts."""


class Layout(Value):
    """Objects, and optionally the part of the full picture that is drawn: `crop` in the format of `Box`, relative."""

    objects: tuple[Box, ...] = ()
    crop: tuple[float, float, float, float] | None = Field(default=None, description="(x0, y0, x1, y1)")

    model_config = ConfigDict(allow_inf_nan=True)

    @model_validator(mode="before")
    @classmethod
    def _plain_list(cls, raw: Any) -> Any:
        return {"objects": raw} if isinstance(raw, (list, tuple)) else raw

    @field_validator("crop")
    @classmethod
    def _crop_is_sound(cls, crop: Four | None) -> Four | None:
        if crop is not None:
            rect(crop, "xyxy")
        return crop

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        full = handler(core)
        items = handler.resolve_ref_schema(full)["properties"]["objects"]["items"]
        return {"anyOf": [{"type": "array", "items": items}, full], "title": "Layout"}

    @classmethod
    def read(cls, raw: Any, where: str) -> Layout:
        """A layout from a list of boxes or a mapping, with paths as the caller wrote them (`layout[3].box`).

        Raises:
            InputError: with the path of the offending item.
        """
        if isinstance(raw, (list, tuple)):
            return cls(objects=tuple(parse(_Boxes, list_of(raw, where, "layout-type", "a list of boxes"), where)))
        layout: Layout = parse(cls, raw, where)
        return layout

    @property
    def crop_rect(self) -> Rect:
        """The crop, or the whole picture."""
        return Rect(0.0, 0.0, 1.0, 1.0) if self.crop is None else rect(self.crop, "xyxy")


_Boxes = Annotated[list[Box], FailFast()]
"""For a long list of invalid items, reporting the first ones is enough."""


def check_layout(layout: Layout, n_classes: int, names: tuple[str, ...], max_objects: int, where: str) -> None:
    """Check a layout of classes for conditioners without crops.

    Raises:
        InputError: a crop, too many boxes, a label that is not a class of the model (with its path).
    """
    check_plain(layout, max_objects, where)
    for i, box in enumerate(layout.objects):
        class_number(box.label, n_classes, names, f"{where}[{i}].label")


def check_plain(layout: Layout, max_objects: int, where: str) -> None:
    """Check any layout for conditioners without crops.

    Raises:
        InputError: a crop, too many boxes.
    """
    if layout.crop is not None:
        raise InputError("layout-crop", "this model takes no crops", where=where, fits="boxes relative to the crop")
    if len(layout.objects) > max_objects:
        fits = f"at most {max_objects}"
        raise InputError("too-many-boxes", f"{len(layout.objects)} objects", where=where, fits=fits)
