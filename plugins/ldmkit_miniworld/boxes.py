"""Boxes and what is found in them: overlap, suppression of doubles, and pairing with the boxes asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ldmkit_miniworld.vocabulary import COLOURED, layout_class

Corners = tuple[float, float, float, float]
"""(x0, y0, x1, y1) relative to the picture, y downwards."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object that the oracle sees.

    Args:
        colour: None for objects that have none.
        score: how sure it is, in [0, 1].
    """

    kind: str
    colour: str | None
    box: Corners
    score: float

    @property
    def label(self) -> str:
        """As layouts name it: `red house`, `tree`."""
        return layout_class(self.kind, self.colour)


def kind_of(label: str) -> str:
    """The object that a layout's label names, without its colour."""
    return label.rpartition(" ")[2]


def colour_of(label: str) -> str | None:
    """The colour that a layout's label names, if any."""
    colour, _, kind = label.rpartition(" ")
    return colour if kind in COLOURED else None


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union (N,M) of boxes (N,4) and (M,4), corners."""
    a, b = np.asarray(first, float).reshape(-1, 1, 4), np.asarray(second, float).reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.clip(sides, 0, None).prod(-1)
    areas = [np.clip(boxes[..., 2:] - boxes[..., :2], 0, None).prod(-1) for boxes in (a, b)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-12))


def suppress(boxes: np.ndarray, scores: np.ndarray, limit: float) -> list[list[int]]:
    """Groups of boxes that mean one object, best group first; the first index of each group has its highest score.

    Greedy: the best box left takes every other one that overlaps it by more than `limit`.
    """
    left = np.argsort(-scores, kind="stable")
    groups: list[list[int]] = []
    while left.size:
        near = overlaps(boxes[left[:1]], boxes[left])[0] > limit
        near[0] = True
        groups.append(left[near].tolist())
        left = left[~near]
    return groups


def pairs(possible: np.ndarray) -> int:
    """How many rows of a boolean matrix (N,M) can be paired with a column of their own: the largest matching.

    Augmenting paths (Kuhn 1955); N and M are a handful.
    """
    owner = [-1] * possible.shape[1]

    def place(row: int, seen: set[int]) -> bool:
        for column in np.flatnonzero(possible[row]).tolist():
            if column in seen:
                continue
            seen.add(column)
            if owner[column] < 0 or place(owner[column], seen):
                owner[column] = row
                return True
        return False

    return sum(place(row, set()) for row in range(possible.shape[0]))


def paired(
    labels: Sequence[str], boxes: Sequence[Corners], found: Sequence[Found], least: float, *, colours: bool = True
) -> int:
    """How many boxes asked for are there: one found object each, of the same label, overlapping by at least `least`.

    Args:
        colours: False: the object alone decides, whatever its colour.
    """
    if not labels or not found:
        return 0
    asked = [label if colours else kind_of(label) for label in labels]
    seen = [thing.label if colours else thing.kind for thing in found]
    same = np.array(asked)[:, None] == np.array(seen)[None]
    return pairs(same & (overlaps(np.array(boxes), np.array([thing.box for thing in found])) >= least))
