"""Which sample stands where in the endless row of epochs: a pure function of the seed."""

from __future__ import annotations

from functools import lru_cache

import torch

from ldmkit.noise import seeded


def place(seed: int, length: int, position: int) -> tuple[int, int]:
    """(epoch, index) of the sample at a position >= 0: every epoch has each sample once, in an order of its own.

    A batch may run over an epoch's end, and be larger than an epoch.
    """
    epoch, offset = divmod(position, length)
    return epoch, _epoch(seed, length, epoch)[offset]


@lru_cache(maxsize=3)
def _epoch(seed: int, length: int, epoch: int) -> list[int]:
    order: list[int] = torch.randperm(length, generator=seeded(seed, "order", epoch)).tolist()
    return order
