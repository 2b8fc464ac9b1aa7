"""A picture under the brush: its colours and, beside them, which thing every point belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from ldmkit_miniworld.vocabulary import RGB

Points: TypeAlias = Sequence[tuple[float, float]]

_TINTS = {"day": (1.0, 1.0, 1.0), "dusk": (1.0, 0.91, 0.87), "night": (0.78, 0.80, 0.93)}


@lru_cache(maxsize=4096)
def shade(colour: RGB, factor: float) -> RGB:
    """Darker below 1; above 1 the distance to white shrinks."""
    if factor <= 1:
        return _rgb([c * factor for c in colour])
    return _rgb([255 - (255 - c) * (2 - factor) for c in colour])


def blend(a: RGB, b: RGB, part: float) -> RGB:
    """`part` of b in a."""
    return _rgb([x + (y - x) * part for x, y in zip(a, b, strict=True)])


@lru_cache(maxsize=4096)
def tinted(colour: RGB, time: str) -> RGB:
    """What a colour looks like in the light of a time of day."""
    return _rgb([c * t for c, t in zip(colour, _TINTS[time], strict=True)])


def _rgb(values: Iterable[float]) -> RGB:
    r, g, b = [0 if v < 0 else 255 if v > 255 else round(v) for v in values]
    return r, g, b


class Canvas:
    """Colours (RGB) and owners (L) at several times the picture's size.

    Args:
        size: side of the finished picture in pixels.
    """

    def __init__(self, size: int):
        self.size = size
        self.fold = 4 if size <= 64 else 3
        self.side = size * self.fold
        self.colours = Image.new("RGB", (self.side, self.side))
        self.owners = Image.new("L", (self.side, self.side))
        self.brush = ImageDraw.Draw(self.colours)
        self.veil = ImageDraw.Draw(self.colours, "RGBA")
        self.claim = ImageDraw.Draw(self.owners)

    def polygon(self, points: Points, fill: RGB, owner: int | None = None, alpha: float = 1.0) -> None:
        """Points in parts of the picture; without an owner the points keep theirs."""
        flat = [v * self.side for point in points for v in point]
        if alpha < 1:
            self.veil.polygon(flat, fill=(*fill, round(alpha * 255)))
        else:
            self.brush.polygon(flat, fill=fill)
        if owner is not None:
            self.claim.polygon(flat, fill=owner)

    def ellipse(self, box: Sequence[float], fill: RGB, owner: int | None = None, alpha: float = 1.0) -> None:
        """(x0, y0, x1, y1) in parts of the picture."""
        x0, y0, x1, y1 = (v * self.side for v in box)
        corners = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        if alpha < 1:
            self.veil.ellipse(corners, fill=(*fill, round(alpha * 255)))
        else:
            self.brush.ellipse(corners, fill=fill)
        if owner is not None:
            self.claim.ellipse(corners, fill=owner)

    def line(self, points: Points, fill: RGB, width: float, owner: int | None = None, alpha: float = 1.0) -> None:
        """A stroke; its width in parts of the picture too."""
        flat = [v * self.side for point in points for v in point]
        thick = max(1, round(width * self.side))
        if alpha < 1:
            self.veil.line(flat, fill=(*fill, round(alpha * 255)), width=thick)
        else:
            self.brush.line(flat, fill=fill, width=thick)
        if owner is not None:
            self.claim.line(flat, fill=owner, width=thick)

    def gradient(self, points: Points, colours: Sequence[tuple[float, RGB]], owner: int) -> None:
        """A polygon filled from top to bottom with the colours at these heights."""
        rows = (np.arange(self.side) + 0.5) / self.side
        stops = [at for at, _ in colours]
        column = np.stack([np.interp(rows, stops, [c[i] for _, c in colours]) for i in range(3)], axis=-1)
        narrow = Image.fromarray(column.round().astype(np.uint8)[:, None])
        strip = narrow.resize((self.side, self.side), Image.Resampling.NEAREST)
        mask = Image.new("L", (self.side, self.side))
        flat = [v * self.side for point in points for v in point]
        ImageDraw.Draw(mask).polygon(flat, fill=255)
        self.colours.paste(strip, (0, 0), mask)
        self.owners.paste(owner, (0, 0), mask)

    def glow(self, x: float, y: float, radius: float, colour: RGB, strength: float) -> None:
        """Light around a point that fades with distance."""
        side = max(2, round(2 * radius * self.side))
        mask = _halo(side, strength)
        self.colours.paste(colour, (round((x - radius) * self.side), round((y - radius) * self.side)), mask)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """(size,size,3) uint8 colours, averaged, and (size,size) uint8 owners, of the pixels' centres."""
        image = np.asarray(self.colours.reduce(self.fold))
        half = self.fold // 2
        return image, np.asarray(self.owners)[half :: self.fold, half :: self.fold]


@lru_cache(maxsize=64)
def _halo(side: int, strength: float) -> Image.Image:
    at = np.linspace(-1, 1, side)
    distance = np.sqrt(at[:, None] ** 2 + at[None] ** 2)
    fade = np.clip(1 - distance, 0, 1) ** 2 * strength
    return Image.fromarray((fade * 255).astype(np.uint8))


class Pen:
    """Draws one object in its own frame: (0, 0) is the top left corner of its extent, (1, 1) the bottom right."""

    def __init__(self, canvas: Canvas, frame: tuple[float, float, float, float], owner: int, mirrored: bool):
        self.canvas, self.owner = canvas, owner
        self.x, self.y, self.width, self.height = frame
        self.mirrored = mirrored

    def at(self, u: float, v: float) -> tuple[float, float]:
        return self.x + (1 - u if self.mirrored else u) * self.width, self.y + v * self.height

    def poly(self, points: Points, fill: RGB) -> None:
        self.canvas.polygon([self.at(u, v) for u, v in points], fill, self.owner)

    def rect(self, u0: float, v0: float, u1: float, v1: float, fill: RGB) -> None:
        self.poly([(u0, v0), (u1, v0), (u1, v1), (u0, v1)], fill)

    def oval(self, u0: float, v0: float, u1: float, v1: float, fill: RGB) -> None:
        self.canvas.ellipse((*self.at(u0, v0), *self.at(u1, v1)), fill, self.owner)

    def stroke(self, points: Points, fill: RGB, width: float) -> None:
        """Width in parts of the object's width."""
        self.canvas.line([self.at(u, v) for u, v in points], fill, width * self.width, self.owner)

    def claim(self, points: Points) -> None:
        """Make gaps between thin parts belong to the object: maps and boxes show its outline."""
        flat = [v * self.canvas.side for u, v in points for v in self.at(u, v)]
        self.canvas.claim.polygon(flat, fill=self.owner)

    def ground_shadow(self, u0: float, u1: float, flat: float = 0.035) -> None:
        """A soft dark ellipse where the object stands; it belongs to the ground."""
        (x0, base), (x1, _) = self.at(u0, 1.0), self.at(u1, 1.0)
        for grow in (1.0, 0.7):
            spread = 0.02 * grow
            box = (min(x0, x1) - spread, base - flat * grow * 0.8, max(x0, x1) + spread, base + flat * grow * 0.7)
            self.canvas.ellipse(box, (20, 25, 40), alpha=0.16)
