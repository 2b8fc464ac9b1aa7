"""Curves over steps, drawn with Pillow: axes, round ticks, a legend, one colour a curve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from ldmkit_training.drawings import colour
from ldmkit_training.sheets import FAINT, INK, PAPER, font

GRID = (228, 230, 234)
FLOOR = 1e-6
"""Logarithmic axes end here."""

Curves = Mapping[str, Sequence[tuple[float, float]]]


class Panel(NamedTuple):
    """One system of axes: title, curves by name, whether its y axis is logarithmic, and a dashed line's height."""

    title: str
    curves: Curves
    log: bool = False
    mark: float | None = None


def line_chart(
    panels: Sequence[Panel | tuple[str, Curves, bool, float | None]], width: int = 720, height: int = 300
) -> Image.Image:
    """Panels one below the other, with one legend at the right; curves of one name have one colour."""
    made = [Panel(*panel) for panel in panels]
    names = list(dict.fromkeys(name for panel in made for name in panel.curves))
    legend = 20 + max([int(font(12).getlength(name)) + 30 for name in names], default=0)
    image = Image.new("RGB", (width + legend, height * len(made)), PAPER)
    pen = ImageDraw.Draw(image)
    inks = {name: colour(i) for i, name in enumerate(names)}
    for i, panel in enumerate(made):
        _Axes(pen, panel, (62, i * height + 34, width - 12, (i + 1) * height - 30), inks).draw()
    for i, name in enumerate(names):
        y = 34 + 20 * i
        pen.line((width, y + 8, width + 20, y + 8), fill=inks[name], width=3)
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
        inks: Mapping[str, tuple[int, int, int]],
    ) -> None:
        self.pen, self.panel, self.frame, self.inks = pen, panel, frame, inks
        points = [point for curve in panel.curves.values() for point in curve if math.isfinite(point[1])]
        marks = [] if panel.mark is None else [self._up(panel.mark)]
        heights = [self._up(y) for _, y in points] + marks or [0.0]
        self.x0, self.x1 = 0.0, max([x for x, _ in points], default=1.0) or 1.0
        low, high = min(heights), max(heights)
        room = (high - low) * 0.06 or 0.5
        self.y0, self.y1 = low - room, high + room
        if panel.log:
            self.y0, self.y1 = math.floor(low), max(math.ceil(high), math.floor(low) + 1)

    def draw(self) -> None:
        """Grid, curves, and the marked height."""
        left, top, right, bottom = self.frame
        pen, panel = self.pen, self.panel
        pen.text((left, top - 24), panel.title, fill=INK, font=font(13))
        decades = [float(d) for d in range(math.ceil(self.y0), math.floor(self.y1) + 1)]
        for value in decades if panel.log else ticks(self.y0, self.y1):
            y = self._y(value)
            pen.line((left, y, right, y), fill=GRID)
            text = f"{10**value:g}" if panel.log else f"{value:.4g}"
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
            if len(spots) > 1:
                pen.line(spots, fill=self.inks[name], width=2, joint="curve")
            for x, y in spots if len(spots) < 60 else ():
                pen.ellipse((x - 2.5, y - 2.5, x + 2.5, y + 2.5), fill=self.inks[name])

    def _up(self, y: float) -> float:
        return math.log10(max(y, FLOOR)) if self.panel.log else y

    def _x(self, x: float) -> float:
        return self.frame[0] + (x - self.x0) / (self.x1 - self.x0) * (self.frame[2] - self.frame[0])

    def _y(self, y: float) -> float:
        return self.frame[3] - (y - self.y0) / (self.y1 - self.y0) * (self.frame[3] - self.frame[1])
