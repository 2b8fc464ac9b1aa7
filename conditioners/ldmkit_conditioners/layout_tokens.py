"""Layouts as the paper's token sequence (arXiv:2112.10752, section 4.3.1), read by its transformer.

An object is three tokens: class (and attributes), top-left corner, bottom-right corner. Corners are cells of
a square grid. Absent objects are three times the last token; two tokens for the crop end the sequence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from pydantic import Field, model_validator

from ldmkit import Conditioner, Example, InputError, Signal, SignalKind, Tokens, Value, rows_of
from ldmkit.bounds import Heads, Layers, Rows, Width
from ldmkit_conditioners.label import class_number
from ldmkit_conditioners.layout import EXAMPLE, Box, Layout, Rect
from ldmkit_conditioners.prompts import padded_rows
from ldmkit_conditioners.transformer import Encoder

_TINY = {"n_classes": 9, "max_objects": 3, "n_tokens": 256, "dim": 16, "layers": 1, "heads": 2, "head_dim": 4}
WHOLE = Rect(0.0, 0.0, 1.0, 1.0)


class Thing(NamedTuple):
    """An object with its class as a number and its attributes as bits: 1 group, 2 occluded, 4 depiction, 8 inside."""

    label: int
    bits: int
    rect: Rect


class LayoutCode(Value):
    """How layouts become tokens.

    Args:
        n_classes: classes without attributes; with them, token = class + n_classes * bits.
        max_objects: slots for objects.
        n_tokens: size of the vocabulary; the grid has int(sqrt(n_tokens)) cells a side, the last token is "none".
        encode_crop: end with the crop's two tokens and keep boxes relative to the full picture; else boxes are
            relative to the crop.
        group, attributes: whether the first bit is encoded, and whether the other three are.
        centres: encode (class, centre) pairs instead of triples.
    """

    n_classes: Rows = 600
    max_objects: int = Field(default=30, gt=0, le=2**15)
    n_tokens: Rows = Field(default=8192, gt=4)
    encode_crop: bool = True
    group: bool = True
    attributes: bool = True
    centres: bool = False

    @property
    def length(self) -> int:
        """Tokens in a sequence."""
        return self.max_objects * (2 if self.centres else 3) + 2 * self.encode_crop

    @property
    def none(self) -> int:
        """The token of absent objects."""
        return self.n_tokens - 1

    @property
    def sections(self) -> int:
        """Cells a side of the grid."""
        return math.isqrt(self.n_tokens)

    def encode(self, things: Sequence[Thing], crop: Rect = WHOLE, flip: bool = False) -> list[int]:
        """The sequence of the first `max_objects` things that touch the crop, mirrored if `flip`. Order is kept."""
        seen = [thing for thing in things if _touch(thing.rect, crop)][: self.max_objects]
        tokens = [token for thing in seen for token in self._object(thing, crop, flip)]
        tokens += [self.none] * (self.length - 2 * self.encode_crop - len(tokens))
        if self.encode_crop:
            tokens += self._corners(crop.flipped() if flip else crop)
        return tokens

    def decode(self, tokens: Sequence[int]) -> tuple[list[Thing], Rect | None]:
        """Objects and crop of a sequence: corners to the nearest cell. Inverse of `encode` up to that.

        Raises:
            InputError: a wrong length, or tokens that do not exist.
        """
        if len(tokens) != self.length or any(not 0 <= t < self.n_tokens for t in tokens):
            fits = f"{self.length} tokens in 0 to {self.none}"
            raise InputError("layout-tokens", f"{len(tokens)} tokens, some out of range or too few", fits=fits)
        each = 2 if self.centres else 3
        body = tokens[: self.max_objects * each]
        groups = [tuple(body[i : i + each]) for i in range(0, len(body), each)]
        things = [self._thing(group) for group in groups if self.none not in group]
        return things, self._rect(tokens[-2], tokens[-1]) if self.encode_crop else None

    def point(self, x: float, y: float) -> int:
        """Cell of a point: y first, halves to even."""
        last = self.sections - 1
        return round(y * last) * self.sections + round(x * last)

    def label(self, thing: Thing) -> int:
        """Token of class and attributes."""
        bits = (thing.bits & 1 if self.group else 0) | (thing.bits & 14 if self.attributes else 0)
        return thing.label + self.n_classes * bits

    def _object(self, thing: Thing, crop: Rect, flip: bool) -> list[int]:
        label = self.label(thing)
        if self.centres:
            x, y, w, h = thing.rect
            return [label, self._centre(x + w / 2, y + h / 2, crop, flip)]
        box = thing.rect if self.encode_crop else _within(thing.rect, crop)
        return [label, *self._corners(box.flipped() if flip else box)]

    def _centre(self, x: float, y: float, crop: Rect, flip: bool) -> int:
        if not self.encode_crop:
            x, y = _clamp((x - crop.x) / crop.w), _clamp((y - crop.y) / crop.h)
        return self.point(1 - x if flip else x, y)

    def _corners(self, box: Rect) -> list[int]:
        return [self.point(box.x, box.y), self.point(box.x + box.w, box.y + box.h)]

    def _thing(self, tokens: tuple[int, ...]) -> Thing:
        bits, label = divmod(tokens[0], self.n_classes)
        if self.centres:
            last = self.sections - 1
            y, x = divmod(tokens[1], self.sections)
            return Thing(label, bits, Rect(x / last, y / last, 0.0, 0.0))
        return Thing(label, bits, self._rect(tokens[1], tokens[2]))

    def _rect(self, first: int, second: int) -> Rect:
        last = self.sections - 1
        (y0, x0), (y1, x1) = divmod(first, self.sections), divmod(second, self.sections)
        return Rect(x0 / last, y0 / last, x1 / last - x0 / last, y1 / last - y0 / last)


def _touch(box: Rect, crop: Rect) -> bool:
    width = min(box.x + box.w, crop.x + crop.w) - max(box.x, crop.x)
    height = min(box.y + box.h, crop.y + crop.h) - max(box.y, crop.y)
    return width > 0 and height > 0


def _within(box: Rect, crop: Rect) -> Rect:
    """Relative to the crop. A box that is cut at its left or top edge keeps its full size, as in the published code."""
    x, y = _clamp((box.x - crop.x) / crop.w), _clamp((box.y - crop.y) / crop.h)
    return Rect(x, y, min(box.w / crop.w, 1 - x), min(box.h / crop.h, 1 - y))


def _clamp(value: float) -> float:
    return min(max(value, 0.0), 1.0)


class LayoutTokensConfig(LayoutCode):
    """How layouts become tokens, and the transformer that reads them; the defaults are layout2img-openimages256's.

    Args:
        truncate: keep the first `max_objects` and drop objects outside the crop, as the published code does;
            else both are errors.
        names: of the classes, in order.
    """

    dim: Width = 512
    layers: Layers = 16
    heads: Heads = 8
    head_dim: Width = 64
    truncate: bool = False
    names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _labels_fit(self) -> LayoutTokensConfig:
        if self.n_classes > self.none:
            raise ValueError(f"{self.n_classes} classes do not fit {self.n_tokens} tokens")
        return self


class LayoutTokens(Conditioner):
    """A layout as tokens (B, length, dim). The null is the empty layout of the whole picture."""

    Config: ClassVar[type[LayoutTokensConfig]] = LayoutTokensConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            _TINY,
            (
                [EXAMPLE],
                [],
                {"objects": [EXAMPLE, {"label": 2, "box": [0, 0, 1, 1], "group_of": True}], "crop": [0, 0, 0.5, 1]},
            ),
        ),
        Example({**_TINY, "truncate": True, "centres": True, "encode_crop": False}, ([EXAMPLE] * 5, [])),
    )
    Input: ClassVar[Any] = Layout
    kind: SignalKind = "tokens"

    def __init__(self, config: Any = None):
        super().__init__(config)
        c = self.config
        self.dim = c.dim
        self.encoder = Encoder(c.n_tokens, c.dim, c.layers, c.heads, c.head_dim, c.length)

    def parse(self, raw: Any, where: str) -> Layout:
        layout = Layout.read(raw, where)
        self.tokens(layout, where)
        return layout

    def tokens(self, layout: Layout, where: str = "layout") -> list[int]:
        """The sequence of a layout.

        Raises:
            InputError: unknown classes, more than max_objects, an object outside the crop, a token out of range.
        """
        code, crop = self.config, layout.crop_rect
        things = [self._thing(box, f"{where}[{i}]") for i, box in enumerate(layout.objects)]
        if layout.crop is not None and not code.truncate:
            lost = next((i for i, thing in enumerate(things) if not _touch(thing.rect, crop)), None)
            if lost is not None:
                raise InputError("box-outside", "the object lies outside the crop", where=f"{where}[{lost}]")
        if len(things) > code.max_objects and not code.truncate:
            raise InputError(
                "too-many-boxes", f"{len(things)} objects", where=where, fits=f"at most {code.max_objects}"
            )
        for i, thing in enumerate(things[: code.max_objects]):
            if (token := code.label(thing)) >= code.n_tokens:
                what = f"token {token} for class and attributes does not exist"
                raise InputError("label-range", what, where=f"{where}[{i}]", fits=f"tokens below {code.n_tokens}")
        return code.encode(things[: code.max_objects], crop)

    def example(self, size: tuple[int, int]) -> Layout:
        return Layout()

    def forward(self, inputs: list[Layout]) -> Tokens:
        rows = [self.tokens(layout) for layout in inputs]
        device = self.encoder.norm.weight.device
        return Tokens(self.encoder(padded_rows(rows, self.config.length, self.config.none, device)))

    def null(self, like: Signal) -> Tokens:
        return Tokens(self([Layout()]).value.expand(rows_of(like), -1, -1))

    def _thing(self, box: Box, where: str) -> Thing:
        label = class_number(box.label, self.config.n_classes, self.config.names, f"{where}.label")
        bits = box.group_of | box.occluded << 1 | box.depiction << 2 | box.inside << 3
        return Thing(label, bits, box.rect)
