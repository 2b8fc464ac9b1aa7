"""Things in a label map: its connected regions."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ldmkit_conditioners.layout import Four

SMALLEST = 0.004
"""Share of the picture; smaller regions are what another thing leaves to be seen of one."""


def regions(labels: Tensor, wanted: Iterable[int]) -> list[tuple[int, Four]]:
    """(label, corners) of every connected region (diagonals connect) of the given labels in a map (H, W), far to near.

    Corners are (x0, y0, x1, y1) as shares of the picture. Regions smaller than `SMALLEST` are left out; those that end
    lower in the picture count as nearer.
    """
    height, width = labels.shape
    found: list[tuple[int, Four]] = []
    for label in wanted:
        marks = _connected(labels.cpu() == label)
        numbers, counts = marks[marks > 0].unique(return_counts=True)
        for mark in numbers[counts >= SMALLEST * labels.numel()].tolist():
            rows, columns = (marks == mark).nonzero(as_tuple=True)
            y0, y1 = int(rows.min()) / height, (int(rows.max()) + 1) / height
            x0, x1 = int(columns.min()) / width, (int(columns.max()) + 1) / width
            found.append((label, (x0, y0, x1, y1)))
    return sorted(found, key=lambda region: region[1][3])


def _connected(mask: Tensor) -> Tensor:
    """(H, W) -> a number > 0 for each connected region, 0 outside: the largest of its cells' own numbers spreads."""
    # float64 counts the cells of any map, float32 those of 4096 x 4096
    marks = torch.arange(1, mask.numel() + 1, dtype=torch.float64).view(1, 1, *mask.shape) * mask
    while True:
        spread = F.max_pool2d(marks, 3, stride=1, padding=1) * mask
        # A cell's number names another cell of its region, whose number may be larger by now: that halves what is left
        # of a long way, where a step to the neighbours alone would take as many rounds as the way has cells.
        spread = F.pad(spread.flatten(), (1, 0))[spread.long()]
        if torch.equal(spread, marks):
            return marks[0, 0].long()
        marks = spread
