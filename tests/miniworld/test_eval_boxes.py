"""Boxes against hand-computed overlaps and pairings."""

from __future__ import annotations

import numpy as np
import pytest
from ldmkit_miniworld.boxes import Found, colour_of, kind_of, overlaps, paired, pairs, suppress


def thing(label: str, *box: float, score: float = 0.9) -> Found:
    return Found(kind_of(label), colour_of(label), (box[0], box[1], box[2], box[3]), score)


def test_overlaps_by_hand() -> None:
    a = np.array([[0, 0, 2, 2], [0, 0, 1, 1]])
    b = np.array([[1, 0, 3, 2], [5, 5, 6, 6], [0, 0, 2, 2]])
    # 2 of 6 cells, none, all; nothing of 1x1 in the first (it only touches), none, 1 of 4
    assert np.allclose(overlaps(a, b), [[2 / 6, 0, 1], [0, 0, 1 / 4]])


def test_an_inverted_box_overlaps_nothing() -> None:
    assert overlaps(np.array([[2, 2, 0, 0]]), np.array([[0, 0, 2, 2]]))[0, 0] == 0


def test_suppression_keeps_the_best_and_the_far() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]], float)
    # 9 of 11 columns are shared: above 0.5, below 0.9
    assert suppress(boxes, np.array([0.5, 0.9, 0.7]), 0.5) == [[1, 0], [2]]
    assert suppress(boxes, np.array([0.5, 0.9, 0.7]), 0.9) == [[1], [2], [0]]


def test_an_empty_box_ends_suppression() -> None:
    assert suppress(np.zeros((2, 4)), np.array([0.5, 0.4]), 0.5) == [[0], [1]]


@pytest.mark.parametrize(
    ("possible", "expected"),
    [
        ([[1, 1], [1, 0]], 2),  # the first row has to make room: greedy by rows would pair only one
        ([[1, 0], [1, 0]], 1),
        ([[0, 0], [0, 0]], 0),
        ([[1, 1, 0], [1, 0, 0], [0, 1, 0]], 2),
    ],
)
def test_largest_matching(possible: list[list[int]], expected: int) -> None:
    assert pairs(np.array(possible, bool)) == expected


def test_one_object_serves_one_box() -> None:
    labels, boxes = ["tree", "tree"], [(0.0, 0.0, 0.4, 0.4), (0.0, 0.0, 0.4, 0.38)]
    assert paired(labels, boxes, [thing("tree", 0, 0, 0.4, 0.4)], 0.5) == 1


def test_the_colour_counts_unless_told_otherwise() -> None:
    labels, boxes = ["red house"], [(0.0, 0.0, 0.4, 0.4)]
    seen = [thing("blue house", 0, 0, 0.4, 0.4)]
    assert paired(labels, boxes, seen, 0.5) == 0
    assert paired(labels, boxes, seen, 0.5, colours=False) == 1


def test_the_least_overlap_counts() -> None:
    labels, boxes = ["tree"], [(0.0, 0.0, 0.4, 0.4)]
    seen = [thing("tree", 0, 0, 0.4, 0.25)]  # 0.625
    assert [paired(labels, boxes, seen, least) for least in (0.5, 0.75)] == [1, 0]


def test_names_of_labels() -> None:
    assert (kind_of("red house"), colour_of("red house")) == ("house", "red")
    assert (kind_of("tree"), colour_of("tree")) == ("tree", None)
    assert thing("red house", 0, 0, 1, 1).label == "red house" and thing("tree", 0, 0, 1, 1).label == "tree"
