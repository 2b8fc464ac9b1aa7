"""A plot over two logarithmic axes, as an SVG for pages and as a picture, from one list of shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, NamedTuple, TypeAlias

from PIL import Image, ImageDraw

from ldmkit_drawing.charts import GRID, trace
from ldmkit_drawing.drawings import Colour, colour
from ldmkit_drawing.sheets import FAINT, INK, PAPER, font

Point: TypeAlias = tuple[float, float]
Anchor: TypeAlias = Literal["start", "middle", "end"]

SHAPES: tuple[tuple[Point, ...], ...] = (
    tuple((math.cos(math.pi * i / 8), math.sin(math.pi * i / 8)) for i in range(16)),
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.15), (1.05, 0.8), (-1.05, 0.8)),
    ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    ((0, 1.15), (1.05, -0.8), (-1.05, -0.8)),
)
"""Outlines of marks, within about 1 of (0, 0): curves are told apart without their colours too."""

LEFT, RIGHT, TOP, BOTTOM = 64, 14, 12, 44
SIZE, TEXT = 4.5, 13
GLARE = 140
"""Brightness of 255 above which a colour is hard to see on white."""
PER_DECADE = ((1.2, (1, 2, 3, 5, 7)), (3.4, (1, 2, 5)), (math.inf, (1,)))
"""Which multiples of the powers of ten are named, by how many decades an axis covers at most."""


class Series(NamedTuple):
    """One curve: its name, (x, y) > 0, and whether it is dashed with hollow marks."""

    name: str
    points: tuple[Point, ...]
    hollow: bool = False


@dataclass(frozen=True)
class Plot:
    """Curves over two logarithmic axes, and a dashed height with a name; points that are not positive are left out."""

    series: Sequence[Series]
    x_label: str
    y_label: str
    mark: float | None = None
    mark_label: str = ""


class Line(NamedTuple):
    """Through points in pixels; `ink` is the number of a series, or the name of a shade."""

    points: tuple[Point, ...]
    ink: int | str
    dashed: bool = False


class Spot(NamedTuple):
    """A series' mark."""

    at: Point
    ink: int
    hollow: bool


class Words(NamedTuple):
    """Text whose baseline starts, has its middle or ends there; turned: reads upwards."""

    at: Point
    text: str
    anchor: Anchor
    turned: bool = False


Shape: TypeAlias = Line | Spot | Words


def shade(index: int) -> tuple[Colour, Colour]:
    """The colour of a series on light and on dark paper."""
    own = colour(index)
    dimmed = min(1.0, GLARE / (0.3 * own[0] + 0.59 * own[1] + 0.11 * own[2]))
    red, green, blue = (round(part * dimmed) for part in own)
    bright = tuple(round(part + (255 - part) * 0.4) for part in own)
    return (red, green, blue), (bright[0], bright[1], bright[2])


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers in [low, high], more of them in each decade the fewer decades there are."""
    decades = math.log10(high / low)
    multiples = next(chosen for limit, chosen in PER_DECADE if decades <= limit)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in multiples if low * 0.999 <= m * 10.0**p <= high * 1.001]


def shapes(plot: Plot, width: int, height: int) -> Iterator[Shape]:
    """Everything that is drawn, in order, in pixels of a canvas of that size."""
    kept = [s._replace(points=tuple(p for p in s.points if p[0] > 0 and 0 < p[1] < math.inf)) for s in plot.series]
    xs = [x for s in kept for x, _ in s.points] or [1.0]
    ys = [y for s in kept for _, y in s.points] + ([plot.mark] if plot.mark else []) or [1.0]
    x0, x1, y0, y1 = min(xs) / 1.12, max(xs) * 1.12, min(ys) / 1.35, max(ys) * 1.35
    right, bottom = width - RIGHT, height - BOTTOM

    def at(x: float, y: float) -> Point:
        across, up = math.log(x / x0) / math.log(x1 / x0), math.log(y / y0) / math.log(y1 / y0)
        return round(LEFT + across * (right - LEFT), 1), round(bottom - up * (bottom - TOP), 1)

    for y in log_ticks(y0, y1):
        yield Line((at(x0, y), at(x1, y)), "grid")
        yield Words((LEFT - 7, at(x0, y)[1] + TEXT * 0.35), f"{y:g}", "end")
    for x in log_ticks(x0, x1):
        yield Line((at(x, y0), at(x, y1)), "grid")
        yield Words((at(x, y0)[0], bottom + TEXT + 5), f"{x:g}", "middle")
    yield Line(((LEFT, TOP), (LEFT, bottom), (right, bottom)), "faint")
    yield Words(((LEFT + right) / 2, height - 8), plot.x_label, "middle")
    yield Words((TEXT + 2, (TOP + bottom) / 2), plot.y_label, "middle", turned=True)
    if plot.mark:
        yield Line((at(x0, plot.mark), at(x1, plot.mark)), "faint", dashed=True)
        yield Words((right, at(x1, plot.mark)[1] - 5), plot.mark_label, "end")
    for i, series in enumerate(kept):
        spots = tuple(at(*point) for point in series.points)
        yield Line(spots, i, series.hollow)
        yield from (Spot(spot, i, series.hollow) for spot in spots)


def outline(spot: Point, ink: int, size: float = SIZE) -> list[Point]:
    """The corners of a series' mark in pixels."""
    return [(spot[0] + size * x, spot[1] + size * y) for x, y in SHAPES[ink % len(SHAPES)]]


def svg(plot: Plot, width: int = 480, height: int = 360) -> str:
    """The plot as an element of a page, which styles `.grid`, `.faint`, `text` and colours `.s0`, `.s1` ..."""
    title = escape(f"{plot.y_label} over {plot.x_label}")
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}" font-size="{TEXT}">'
    return "\n".join([head, *(_element(shape) for shape in shapes(plot, width, height)), "</svg>"])


def svg_key(index: int, hollow: bool) -> str:
    """A small element that shows a series' line and mark, for a legend."""
    drawn = (Line(((1, 7), (27, 7)), index, hollow), Spot((14, 7), index, hollow))
    elements = "".join(_element(shape) for shape in drawn)
    return f'<svg viewBox="0 0 28 14" width="28" height="14" aria-hidden="true">{elements}</svg>'


def picture(plot: Plot, width: int, height: int) -> Image.Image:
    """The plot on white, with its legend beneath."""
    rows = _legend_rows(plot, width - LEFT)
    image = Image.new("RGB", (width, height + 22 * len(rows)), PAPER)
    pen = ImageDraw.Draw(image)
    for shape in shapes(plot, width, height):
        _paint(pen, image, shape)
    for number, row in enumerate(rows):
        for left, index, series in row:
            x, y = LEFT + left, height + 22 * number + 11
            _paint(pen, image, Line(((x, y), (x + 26, y)), index, series.hollow))
            _paint(pen, image, Spot((x + 13, y), index, series.hollow))
            pen.text((x + 33, y), series.name, fill=INK, font=font(TEXT), anchor="lm")
    return image


def _legend_rows(plot: Plot, width: int) -> list[list[tuple[float, int, Series]]]:
    """For each line of the legend: left edge, number and series."""
    rows: list[list[tuple[float, int, Series]]] = [[]]
    x = 0.0
    for index, series in enumerate(plot.series):
        wide = 33 + font(TEXT).getlength(series.name) + 18
        if x and x + wide > width:
            rows, x = [*rows, []], 0.0
        rows[-1].append((x, index, series))
        x += wide
    return rows


def _element(shape: Shape) -> str:
    if isinstance(shape, Line):
        points = " ".join(f"{x:g},{y:g}" for x, y in shape.points)
        kind = f"s{shape.ink}" if isinstance(shape.ink, int) else shape.ink
        dashes = ' stroke-dasharray="5 5"' if shape.dashed else ""
        return f'<polyline class="line {kind}" points="{points}" fill="none"{dashes}/>'
    if isinstance(shape, Spot):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline(shape.at, shape.ink))
        return f'<polygon class="spot{" hollow" if shape.hollow else ""} s{shape.ink}" points="{points}"/>'
    (x, y), turn = shape.at, ""
    if shape.turned:
        turn = f' transform="rotate(-90 {x:g} {y:g})"'
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{shape.anchor}"{turn}>{escape(shape.text)}</text>'


def _paint(pen: ImageDraw.ImageDraw, image: Image.Image, shape: Shape) -> None:
    if isinstance(shape, Line):
        ink = shade(shape.ink)[0] if isinstance(shape.ink, int) else GRID if shape.ink == "grid" else FAINT
        trace(pen, shape.points, ink, 2 if isinstance(shape.ink, int) else 1, dotted=shape.dashed)
    elif isinstance(shape, Spot):
        pen.polygon(outline(shape.at, shape.ink), PAPER if shape.hollow else shade(shape.ink)[0], shade(shape.ink)[0])
    elif shape.turned:
        words = Image.new("RGB", (round(font(TEXT).getlength(shape.text)) + 2, TEXT + 5), PAPER)
        ImageDraw.Draw(words).text((1, 0), shape.text, fill=FAINT, font=font(TEXT))
        up = words.rotate(90, expand=True)
        image.paste(up, (max(0, round(shape.at[0] - TEXT)), max(0, round(shape.at[1] - up.height / 2))))
    else:
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
        pen.text(shape.at, shape.text, fill=FAINT, font=font(TEXT), anchor=anchor)
