"""Curves over steps, drawn with Pillow: axes, round ticks, a legend, one colour a curve."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from ldmkit_drawing.drawings import Colour, colour
from ldmkit_drawing.sheets import FAINT, INK, PAPER, font

GRID = (228, 230, 234)
Curves = Mapping[str, Sequence[tuple[float, float]]]


class Panel(NamedTuple):
    """One system of axes: title, curves by name, and a dashed line's height.

    `floor` makes the y axis logarithmic, from there on: what is less, or negative, lies at the bottom.
    """

    title: str
    curves: Curves
    floor: float | None = None
    mark: float | None = None


def line_chart(
    panels: Sequence[Panel | tuple[str, Curves, float | None, float | None]], width: int = 720, height: int = 300
) -> Image.Image:
    """Panels one below the other, with one legend at the right; curves of one name have one colour.

    `name (more)` has the colour of `name`, and is dotted.
    """
    made = [Panel(*panel) for panel in panels]
    names = list(dict.fromkeys(name for panel in made for name in panel.curves))
    legend = 20 + max([int(font(12).getlength(name)) + 30 for name in names], default=0)
    image = Image.new("RGB", (width + legend, height * len(made)), PAPER)
    pen = ImageDraw.Draw(image)
    bases = list(dict.fromkeys(_base(name) for name in names))
    inks = {name: colour(bases.index(_base(name))) for name in names}
    for i, panel in enumerate(made):
        _Axes(pen, panel, (62, i * height + 34, width - 12, (i + 1) * height - 30), inks).draw()
    for i, name in enumerate(names):
        y = 34 + 20 * i
        trace(pen, [(width, y + 8), (width + 20, y + 8)], inks[name], 3, dotted=_base(name) != name)
        pen.text((width + 26, y), name, fill=INK, font=font(12))
    return image


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from low to high, about `count` of them."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if raw <= power * m * 1.0001)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


class _Axes:
    def __init__(
        self,
        pen: ImageDraw.ImageDraw,
        panel: Panel,
        frame: tuple[int, int, int, int],
        inks: Mapping[str, Colour],
    ) -> None:
        self.pen, self.panel, self.frame, self.inks = pen, panel, frame, inks
        points = [point for curve in panel.curves.values() for point in curve if math.isfinite(point[1])]
        marks = [] if panel.mark is None else [self._up(panel.mark)]
        heights = [self._up(y) for _, y in points] + marks or [0.0]
        self.x0, self.x1 = 0.0, max([x for x, _ in points], default=1.0) or 1.0
        low, high = min(heights), max(heights)
        room = (high - low) * 0.06 or 0.5
        self.y0, self.y1 = low - room, high + room
        if panel.floor is not None:
            self.y0, self.y1 = math.floor(low), max(math.ceil(high), math.floor(low) + 1)

    def draw(self) -> None:
        """Grid, curves, and the marked height."""
        left, top, right, bottom = self.frame
        pen, panel = self.pen, self.panel
        pen.text((left, top - 24), panel.title, fill=INK, font=font(13))
        decades = [float(d) for d in range(math.ceil(self.y0), math.floor(self.y1) + 1)]
        for value in decades if panel.floor is not None else ticks(self.y0, self.y1):
            y = self._y(value)
            pen.line((left, y, right, y), fill=GRID)
            text = f"{10**value:g}" if panel.floor is not None else f"{value:.4g}"
            pen.text((left - 6 - pen.textlength(text, font=font(11)), y - 7), text, fill=FAINT, font=font(11))
        for value in ticks(self.x0, self.x1, 6):
            x = self._x(value)
            text = f"{value:g}"
            pen.line((x, bottom, x, bottom + 4), fill=FAINT)
            pen.text((x - pen.textlength(text, font=font(11)) / 2, bottom + 6), text, fill=FAINT, font=font(11))
        pen.line((left, top, left, bottom, right, bottom), fill=FAINT)
        if panel.mark is not None:
            y = self._y(self._up(panel.mark))
            for x in range(left, right, 8):
                pen.line((x, y, x + 4, y), fill=FAINT)
        for name, curve in panel.curves.items():
            spots = [(self._x(x), self._y(self._up(y))) for x, y in curve if math.isfinite(y)]
            trace(pen, spots, self.inks[name], 2, dotted=_base(name) != name)
            for x, y in spots if len(spots) < 40 and _base(name) == name else ():
                pen.ellipse((x - 2.5, y - 2.5, x + 2.5, y + 2.5), fill=self.inks[name])

    def _up(self, y: float) -> float:
        return y if self.panel.floor is None else math.log10(max(y, self.panel.floor))

    def _x(self, x: float) -> float:
        return self.frame[0] + (x - self.x0) / (self.x1 - self.x0) * (self.frame[2] - self.frame[0])

    def _y(self, y: float) -> float:
        return self.frame[3] - (y - self.y0) / (self.y1 - self.y0) * (self.frame[3] - self.frame[1])


def _base(name: str) -> str:
    return name.partition(" (")[0]


def trace(
    pen: ImageDraw.ImageDraw, spots: Sequence[tuple[float, float]], ink: Colour, width: int, *, dotted: bool
) -> None:
    """A line through points; a dotted one in dashes of 5 pixels, 5 apart."""
    if len(spots) < 2:
        return
    if not dotted:
        pen.line(list(spots), fill=ink, width=width, joint="curve")
        return
    gone = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(spots):
        length = math.hypot(x1 - x0, y1 - y0)
        for dash in range(math.ceil((length + gone) / 10)):
            start, end = max(0.0, 10 * dash - gone), min(length, 10 * dash - gone + 5)
            if end > start:
                pen.line([(x0 + (x1 - x0) * t / length, y0 + (y1 - y0) * t / length) for t in (start, end)], ink, width)
        gone = (gone + length) % 10
