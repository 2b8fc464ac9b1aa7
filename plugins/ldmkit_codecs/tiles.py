"""Positions of tiles along the sides of a picture, and their blending."""

from __future__ import annotations

from bisect import bisect_left
from math import gcd
from typing import NamedTuple

import torch
from torch import Tensor


class TileAxis(NamedTuple):
    """Tiles along one side: `starts` ascending, each `size` long, together covering [0, length). Pixels."""

    length: int
    size: int
    starts: tuple[int, ...]

    def scaled(self, divide: int) -> TileAxis:
        """The same tiles in units of `divide` pixels, which starts and size are multiples of."""
        return TileAxis(self.length // divide, self.size // divide, tuple(start // divide for start in self.starts))

    def owned(self, index: int) -> tuple[int, int]:
        """(first, last + 1) position that a tile owns; bounds are in the middle of overlaps, on common multiples."""
        unit = gcd(self.size, *self.starts)
        bounds = [0]
        for before, start in zip(self.starts, self.starts[1:], strict=False):
            bounds.append((start + before + self.size) // 2 // unit * unit)
        bounds.append(self.length)
        return bounds[index], bounds[index + 1]

    def weights(self) -> Tensor:
        """Weight of each tile at each of its positions: (tiles, size) float64; at each place they add up to 1.

        Of an overlap of L positions, the first 7/16 belong to the tile before, the last to the one after, and
        between them the weight moves linearly.
        """
        full = torch.zeros(len(self.starts), self.length, dtype=torch.float64)
        for index, start in enumerate(self.starts):
            overlap = self.starts[index - 1] + self.size - start if index else 0
            ramp = ((torch.arange(overlap, dtype=torch.float64) + 0.5) * 8 / max(overlap, 1) - 3.5).clamp(0, 1)
            full[:index, start : start + overlap] *= 1 - ramp
            full[index, start : start + overlap] = ramp
            full[index, start + overlap : start + self.size] = 1
        return torch.stack([row[s : s + self.size] for row, s in zip(full, self.starts, strict=True)])


def _size(length: int, count: int, unit: int, overlap: int) -> int:
    if count == 1:
        return length
    return min(-(-(length + (count - 1) * overlap) // (count * unit)) * unit, length)


def axis(length: int, count: int, unit: int, overlap: int) -> TileAxis:
    """`count` equal tiles over `length`, evenly placed on multiples of `unit`, overlapping by at least `overlap`.

    `length` and `overlap` are multiples of `unit`.
    """
    size = _size(length, count, unit, overlap)
    steps = (length - size) // unit
    return TileAxis(length, size, tuple(steps * i // max(count - 1, 1) * unit for i in range(count)))


def best_axes(height: int, width: int, area: int, unit: int, overlap: int) -> tuple[TileAxis, TileAxis] | None:
    """The tiling with tiles of at most `area` pixels that computes the fewest pixels; among these, the squarest tiles.

    None if even tiles of twice the overlap are too large.
    """
    row_sizes, column_sizes = _sizes(height, unit, overlap), _sizes(width, unit, overlap)
    best: tuple[int, int, int, int] | None = None
    for rows, row_size in enumerate(row_sizes, 1):
        columns = 1 + bisect_left(column_sizes, -(area // row_size), key=lambda size: -size)
        if columns > len(column_sizes):
            continue
        column_size = column_sizes[columns - 1]
        cost = rows * columns * row_size * column_size
        if best is None or (cost, abs(row_size - column_size)) < best[:2]:
            best = (cost, abs(row_size - column_size), rows, columns)
    if best is None:
        return None
    return axis(height, best[2], unit, overlap), axis(width, best[3], unit, overlap)


def _sizes(length: int, unit: int, overlap: int) -> list[int]:
    """Size of the tiles of one side by their number - 1, from one tile to tiles of just twice the overlap."""
    least = max(2 * overlap, unit)
    found = [length]
    while True:
        size = _size(length, len(found) + 1, unit, overlap)
        if size < least or size == length or (size == found[-1] == least):
            return found
        found.append(size)
