"""Filled discs and ellipses and thick lines on a canvas, pixel for pixel as OpenCV draws them without antialiasing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Point = tuple[int, int]
Colour = tuple[int, int, int]

_HALF = 1 << 15
"""Of a pixel, in units of 2^-16."""

SINES = np.round(np.sin(np.radians(np.arange(451))), 7).astype(np.float32).astype(np.float64)
"""Of whole degrees, as OpenCV has them: seven digits in single precision."""


def disc(canvas: Array, centre: Point, radius: int, colour: Colour) -> None:
    """Fill a circle about (x, y), by the midpoint algorithm."""
    spans: dict[int, int] = {}
    wide, high, error, plus, minus = radius, 0, 0, 1, 2 * radius - 1
    while wide >= high:
        for row, half in ((high, wide), (wide, high)):
            spans[row] = max(spans.get(row, 0), half)
        high, error, plus = high + 1, error + plus, plus + 2
        if error > 0:
            error, wide, minus = error - minus, wide - 1, minus - 2
    x, y = centre
    for row, half in spans.items():
        for at in {y - row, y + row}:
            _span(canvas, at, x - half, x + half, colour)


def ellipse(canvas: Array, centre: Point, axes: Point, degrees: int, colour: Colour) -> None:
    """Fill an ellipse about (x, y) with half axes (along, across), the first at an angle clockwise from the x axis.

    It is a polygon with a corner at every degree, in whole pixels.
    """
    polygon(canvas, _corners(centre, axes, degrees), colour)


def _corners(centre: Point, axes: Point, degrees: int) -> list[Point]:
    turn = degrees % 360 if degrees != 360 else 360
    sine, cosine = SINES[turn], SINES[450 - turn]
    steps = np.arange(361)
    along, across = axes[0] * SINES[450 - steps], axes[1] * SINES[steps]
    x = np.rint(centre[0] + along * cosine - across * sine).astype(int).tolist()
    y = np.rint(centre[1] + along * sine + across * cosine).astype(int).tolist()
    found = [point for point, _ in groupby(zip(x, y, strict=True))]
    return found if len(found) > 1 else [centre, centre]


def polygon(canvas: Array, corners: Sequence[Point], colour: Colour) -> None:
    """Fill a convex polygon with corners (x, y), its outline included, which rounds otherwise than what is inside."""
    edges = zip(corners, (*corners[1:], corners[0]), strict=True)
    _fill(canvas, (chain(line(a, b), _crossings((a[0] << 16, a[1]), (b[0] << 16, b[1]))) for a, b in edges), colour)


def thick_line(canvas: Array, start: Point, end: Point, colour: Colour) -> None:
    """A line two pixels wide between two points (x, y), with round ends."""
    (x0, y0), (x1, y1) = ((x << 16, y << 16) for x, y in (start, end))
    length = math.hypot(x1 - x0, y1 - y0) / (1 << 16)
    if length > 0:
        aside = round((y1 - y0) / length), round((x1 - x0) / length)
        corners = [(x0 + aside[0], y0 - aside[1]), (x0 - aside[0], y0 + aside[1])]
        corners += [(x1 - aside[0], y1 + aside[1]), (x1 + aside[0], y1 - aside[1])]
        _fine_polygon(canvas, corners, colour)
    for point in (start, end):
        disc(canvas, point, 1, colour)


def _fine_polygon(canvas: Array, corners: Sequence[Point], colour: Colour) -> None:
    """`polygon` with corners in units of 2^-16 pixels."""
    edges = list(zip(corners, (*corners[1:], corners[0]), strict=True))
    rows = [((a[0], (a[1] + _HALF) >> 16), (b[0], (b[1] + _HALF) >> 16)) for a, b in edges]
    outlines = (chain(_fine_line(*edge), _crossings(*row)) for edge, row in zip(edges, rows, strict=True))
    _fill(canvas, outlines, colour)


def _fine_line(start: Point, end: Point) -> Iterator[Point]:
    """The pixels of a line between points in units of 2^-16 pixels, one for each step along its longer side."""
    flat = abs(end[0] - start[0]) > abs(end[1] - start[1])
    along = 0 if flat else 1
    if start[along] > end[along]:
        start, end = end, start
    long, short = end[along] - start[along], end[1 - along] - start[1 - along]
    step = _divided(short << 16, long | 1)
    at, aside = (start[along] + _HALF) >> 16, start[1 - along] + _HALF
    yield (end[0] + _HALF) >> 16, (end[1] + _HALF) >> 16
    for _ in range((long >> 16) + 1):
        yield (at, aside >> 16) if flat else (aside >> 16, at)
        at, aside = at + 1, aside + step


def _fill(canvas: Array, outlines: Iterable[Iterable[Point]], colour: Colour) -> None:
    """Fill every row between the leftmost and the rightmost pixel of its outline."""
    least: dict[int, int] = {}
    most: dict[int, int] = {}
    for x, y in chain.from_iterable(outlines):
        least[y] = min(least.get(y, x), x)
        most[y] = max(most.get(y, x), x)
    for y, left in least.items():
        _span(canvas, y, left, most[y], colour)


def line(start: Point, end: Point) -> Iterator[Point]:
    """The pixels of a line one pixel wide, from its left end to its right one, by Bresenham's algorithm."""
    if start[0] > end[0]:
        start, end = end, start
    (x, y), width, height = start, end[0] - start[0], abs(end[1] - start[1])
    down = 1 if end[1] >= start[1] else -1
    flat = width >= height
    long, short = (width, height) if flat else (height, width)
    error = long - 2 * short
    for _ in range(long + 1):
        yield x, y
        aside = error < 0
        error += 2 * long * aside - 2 * short
        x += 1 if flat or aside else 0
        y += down if not flat or aside else 0


def _crossings(start: Point, end: Point) -> Iterator[Point]:
    """Where an edge crosses the rows of pixels, but its lowest: points have x in units of 2^-16 pixels, y in pixels."""
    (x0, y0), (x1, y1) = (start, end) if start[1] <= end[1] else (end, start)
    height = y1 - y0
    at, step = x0 + _HALF, _divided(2 * (x1 - x0) + height, 2 * height) if height else 0
    for y in range(y0, y1):
        yield at >> 16, y
        at += step


def _divided(number: int, by: int) -> int:
    """Rounded towards 0, as C divides."""
    return number // by if number >= 0 else -(-number // by)


def _span(canvas: Array, y: int, left: int, right: int, colour: Colour) -> None:
    if 0 <= y < canvas.shape[0] and right >= 0:
        canvas[y, max(left, 0) : right + 1] = colour


def limb(canvas: Array, start: tuple[float, float], end: tuple[float, float], half: int, colour: Colour) -> None:
    """Fill the ellipse between two points (x, y) that is `half` pixels wide on either side."""
    (x0, y0), (x1, y1) = start, end
    length = math.hypot(x0 - x1, y0 - y1)
    degrees = math.degrees(math.atan2(y0 - y1, x0 - x1))
    centre = (int((x0 + x1) / 2), int((y0 + y1) / 2))
    ellipse(canvas, centre, (int(length / 2), half), int(degrees), colour)
