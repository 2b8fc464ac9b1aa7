"""Labelled contact sheets: rows of pictures and drawn conditions, with captions, column heads and a title.

    Sheet("Blood cells", columns=("boxes", "sample")).row(drawn_boxes(layout), sample, label="seed 7").save("sheet.png")

A cell is a picture (PIL, array (H,W,3) uint8, tensor (3,H,W) in [0,1]), something that draws itself at the size it
gets (`ldmkit_drawing.drawings`), None (left empty), or a `Cell` of one of these with words beneath.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ldmkit import check_png, to_pil, write_new

Drawing: TypeAlias = Callable[[tuple[int, int]], Image.Image]
"""Draws itself at (width, height) in pixels."""

Content: TypeAlias = "Image.Image | np.ndarray[Any, Any] | Tensor | Drawing | None"

INK = (28, 32, 38)
FAINT = (110, 117, 127)
PAPER = (255, 255, 255)
EMPTY = (240, 241, 244)


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a sheet, with a caption beneath."""

    content: Content
    label: str = ""


class Style(NamedTuple):
    """Measures in pixels.

    Args:
        tile: the longer side of a cell; pictures are enlarged or reduced to it, drawings are drawn in it.
        gap: between cells.
        margin: around the sheet.
        text: size of captions; column heads and row labels are as large, the title 1.6 times.
        gutter: width of row labels, where there are any.
        resample: "smooth", or "nearest", which shows every pixel of an enlarged picture.
    """

    tile: int = 144
    gap: int = 10
    margin: int = 18
    text: int = 13
    gutter: int = 110
    resample: Literal["smooth", "nearest"] = "smooth"


DEFAULT = Style()


class _Row(NamedTuple):
    label: str
    cells: tuple[Cell, ...]


class Sheet:
    """A contact sheet; rows may differ in length. `row` and `heading` return the sheet itself.

    Args:
        title: above everything.
        columns: heads, above the first row.
        note: small print below the title (what, when, how).
    """

    def __init__(self, title: str = "", columns: Sequence[str] = (), *, note: str = "", style: Style = DEFAULT) -> None:
        self.title, self.note, self.columns, self.style = title, note, tuple(columns), style
        self._rows: list[_Row] = []

    def row(self, *cells: Cell | Content, label: str = "") -> Self:
        """One more row, of cells or of what stands in them."""
        made = tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells)
        self._rows.append(_Row(label, made))
        return self

    def heading(self, text: str) -> Self:
        """A line of its own between rows."""
        self._rows.append(_Row(text, ()))
        return self

    def render(self) -> Image.Image:
        """The sheet as an RGB picture."""
        style = self.style
        count = max([len(self.columns), *(len(row.cells) for row in self._rows), 1])
        gutter = style.gutter + style.gap if any(row.label and row.cells for row in self._rows) else 0
        width = 2 * style.margin + gutter + count * style.tile + (count - 1) * style.gap
        blocks = [*self._heads(width, gutter), *(self._block(row, width, gutter) for row in self._rows)]
        height = 2 * style.margin + sum(block.height for block in blocks) + style.gap * max(0, len(blocks) - 1)
        sheet = Image.new("RGB", (width, height), PAPER)
        top = style.margin
        for block in blocks:
            sheet.paste(block, (0, top))
            top += block.height + style.gap
        return sheet

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a PNG, and return where it is: a name that is taken gets the next free number, unless `overwrite`.

        Raises:
            InputError: no .png path, or no such folder.
        """
        path = check_png(path)
        picture = self.render()
        return write_new(path, lambda file: picture.save(file, format="PNG"), overwrite=overwrite)

    def _heads(self, width: int, gutter: int) -> list[Image.Image]:
        style, blocks = self.style, []
        inner = width - 2 * style.margin
        if self.title:
            blocks.append(_indented(words(self.title, inner, round(style.text * 1.6)), width, style.margin))
        if self.note:
            blocks.append(_indented(words(self.note, inner, style.text, FAINT), width, style.margin))
        if self.columns:
            heads = [words(head, style.tile, style.text, align="centre") for head in self.columns]
            block = Image.new("RGB", (width, max(head.height for head in heads)), PAPER)
            for i, head in enumerate(heads):
                block.paste(head, (self._left(i, gutter), block.height - head.height))
            blocks.append(block)
        return blocks

    def _block(self, row: _Row, width: int, gutter: int) -> Image.Image:
        style = self.style
        if not row.cells:
            return _indented(words(row.label, width - 2 * style.margin, round(style.text * 1.2)), width, style.margin)
        tiles = [rendered(cell.content, style.tile, style.resample) for cell in row.cells]
        captions = [words(cell.label, style.tile, style.text, align="centre") for cell in row.cells]
        depths = [tile.height if tile is not None else style.tile for tile in tiles]
        tallest = max((tile.height for tile in tiles if tile is not None), default=style.tile)
        lowest = [d + 4 + c.height if cell.label else d for d, c, cell in zip(depths, captions, row.cells, strict=True)]
        label = words(row.label, style.gutter, style.text, align="right")
        block = Image.new("RGB", (width, max([*lowest, tallest, label.height if row.label else 0])), PAPER)
        for i, (cell, tile, caption) in enumerate(zip(row.cells, tiles, captions, strict=True)):
            left = self._left(i, gutter)
            if tile is not None:
                block.paste(tile, (left + (style.tile - tile.width) // 2, 0))
            if cell.label:
                block.paste(caption, (left, depths[i] + 4))
        if row.label:
            block.paste(label, (style.margin, max(0, (tallest - label.height) // 2)))
        return block

    def _left(self, column: int, gutter: int) -> int:
        return self.style.margin + gutter + column * (self.style.tile + self.style.gap)


def picture(content: Content) -> Image.Image | None:
    """A picture in any of the forms a cell takes, as RGB; None for what is no picture but draws itself, or nothing."""
    if isinstance(content, Tensor):
        return to_pil(content)[0]
    if isinstance(content, np.ndarray):
        return Image.fromarray(content).convert("RGB")
    return content.convert("RGB") if isinstance(content, Image.Image) else None


def rendered(content: Content, tile: int, resample: Literal["smooth", "nearest"] = "smooth") -> Image.Image | None:
    """Content fitted into a square of `tile` pixels, its sides' ratio kept; None stays None."""
    if content is None:
        return None
    image = picture(content)
    if image is None:
        assert callable(content)
        return content((tile, tile)).convert("RGB")
    scale = tile / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    way = Image.Resampling.NEAREST if resample == "nearest" else Image.Resampling.LANCZOS
    return image if size == image.size else image.resize(size, way)


@lru_cache(maxsize=32)
def font(size: int) -> Any:
    """Pillow's own font."""
    return ImageFont.load_default(size)


def words(
    text: str,
    width: int,
    size: int,
    ink: tuple[int, int, int] = INK,
    paper: tuple[int, int, int] = PAPER,
    align: Literal["left", "centre", "right"] = "left",
    lines: int = 8,
) -> Image.Image:
    """Text as a picture of that width, wrapped between words (inside one that is too long), at most `lines` lines."""
    wrapped = wrap(text, width, size, most=lines + 1)
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], wrapped[lines - 1] + " ..."]
    step = math.ceil(size * 1.3)
    image = Image.new("RGB", (width, max(1, step * len(wrapped))), paper)
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(wrapped):
        free = width - draw.textlength(line, font=font(size))
        left = {"left": 0.0, "centre": free / 2, "right": free}[align]
        draw.text((max(0.0, left), i * step), line, fill=ink, font=font(size))
    return image


def wrap(text: str, width: int, size: int, most: int | None = None) -> list[str]:
    """Lines of at most `width` pixels (and characters, which are a pixel wide at least), the first `most` of them.

    The work grows with the text's length and no faster: no more than a line's worth is ever measured at once.
    """
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if _fits(joined, width, size):
                line = joined
                continue
            if line:
                lines.append(line)
            *full, line = _pieces(word, width, size, most)
            lines += full
            if most is not None and len(lines) >= most:
                return lines[:most]
        lines.append(line)
    return lines if most is None else lines[:most]


def _fits(text: str, width: int, size: int) -> bool:
    return len(text) <= width and font(size).getlength(text) <= width


def _pieces(word: str, width: int, size: int, most: int | None) -> list[str]:
    """A word cut into lines; its last piece may be empty only where the word is."""
    made: list[str] = []
    start = 0
    while len(word) - start > 1 and not _fits(word[start : start + width + 1], width, size):
        low, high = 1, min(width, len(word) - start - 1) + 1  # that many characters are taken; `high` is too many
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _fits(word[start : start + middle], width, size) else (low, middle)
        made.append(word[start : start + low])
        start += low
        if most is not None and len(made) >= most:
            break
    return [*made, word[start : start + width + 1]]


def _indented(image: Image.Image, width: int, left: int) -> Image.Image:
    block = Image.new("RGB", (width, image.height), PAPER)
    block.paste(image, (left, 0))
    return block
