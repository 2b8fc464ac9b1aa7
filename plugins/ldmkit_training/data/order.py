"""The order of samples across epochs, as a pure function of the seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, count
from typing import TypeAlias

import numpy as np
import torch

from ldmkit import SpecError, seeded

CHUNK = 8192
"""Draws of a mixture that are put in order at once."""

Mixture: TypeAlias = tuple[tuple[int, int], ...]
"""(samples, draws) of stretches of indices, see `ldmkit.Dataset.mixture`."""


def place(seed: int, length: int, position: int, mixture: Mixture = ()) -> tuple[int, int]:
    """(epoch, index) of the sample at a position >= 0: every epoch has each sample once, in an order of its own.

    A batch may run over an epoch's end, and be larger than an epoch. With a mixture every stretch of indices has epochs
    of its own, and of every so many positions exactly its share.
    """
    if not mixture:
        epoch, offset = divmod(position, length)
        return epoch, _orders(seed, length)(epoch)[offset]
    block, offset = divmod(position, sum(draws for _, draws in mixture))
    number, earlier = _block(seed, mixture, block)[offset]
    size, draws = mixture[number]
    epoch, within = divmod(block * draws + earlier, size)
    first = sum(size for size, _ in mixture[:number])
    return epoch, first + _orders(seed, size, number)(epoch)[within]


def places(seed: int, length: int, mixture: Mixture = ()) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same of all positions from 0 on: (epochs, indices) of an epoch, or of some blocks of a mixture; endless."""
    if not mixture:
        for epoch in count():
            yield np.full(length, epoch, dtype=np.int64), np.array(_orders(seed, length)(epoch), dtype=np.int64)
    once = sum(draws for _, draws in mixture)
    many = -(-CHUNK // once)
    for first in count(0, many):
        drawn = np.array([_block(seed, mixture, block) for block in range(first, first + many)]).reshape(-1, 2)
        blocks = np.repeat(np.arange(first, first + many), once)
        yield _of_stretches(seed, mixture, blocks, drawn)


def _of_stretches(seed: int, mixture: Mixture, blocks: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(epochs, indices) of a mixture's draws: (block, (stretch, how many of it the block has before)) each."""
    epochs, indices = np.empty(len(drawn), dtype=np.int64), np.empty(len(drawn), dtype=np.int64)
    start = 0
    for number, (size, draws) in enumerate(mixture):
        here = np.flatnonzero(drawn[:, 0] == number)
        epochs[here], within = np.divmod(blocks[here] * draws + drawn[here, 1], size)
        for epoch in np.unique(epochs[here]):
            order = np.array(_orders(seed, size, number)(int(epoch)))
            own = epochs[here] == epoch
            indices[here[own]] = start + order[within[own]]
        start += size
    return epochs, indices


def checked_mixture(mixture: Mixture, length: int) -> Mixture:
    """A source's mixture, if it is one.

    Raises:
        SpecError: `mixture`: its stretches are not all of the samples, or are never drawn.
    """
    if mixture and (sum(size for size, _ in mixture) != length or min(map(min, mixture)) < 1):
        what = f"a mixture {mixture} of a source of {length} samples"
        raise SpecError("mixture", what, where="data.train", fits="(samples, draws), both from 1 on, of all samples")
    return tuple(mixture)


def stretch_of(index: int, length: int, mixture: Mixture = ()) -> range:
    """The indices of the stretch that an index is in: among them is what stands in for a damaged sample."""
    first = 0
    for size, _ in mixture or ((length, 1),):
        if index < first + size:
            return range(first, first + size)
        first += size
    raise IndexError(index)


def after(index: int, length: int, mixture: Mixture = ()) -> Iterator[int]:
    """All indices of an index's stretch, from itself on, round the end."""
    found = stretch_of(index, length, mixture)
    return (found[(index - found.start + step) % len(found)] for step in range(len(found)))


def passes(drawn: int, length: int, mixture: Mixture = ()) -> tuple[float, ...]:
    """How often each stretch (or all) is gone through by so many draws."""
    if not mixture:
        return (drawn / length,)
    block = sum(draws for _, draws in mixture)
    return tuple(drawn * draws / block / size for size, draws in mixture)


@lru_cache(maxsize=256)
def _orders(seed: int, length: int, *stretch: int) -> Callable[[int], Sequence[int]]:
    """Epoch -> its order; those of the epochs that were asked for last are kept."""

    @lru_cache(maxsize=3)
    def order(epoch: int) -> list[int]:
        found: list[int] = torch.randperm(length, generator=seeded(seed, "order", *stretch, epoch)).tolist()
        return found

    return order


@lru_cache(maxsize=3)
def _block(seed: int, mixture: Mixture, block: int) -> list[tuple[int, int]]:
    """Of each draw of a block: its stretch, and how many draws of that stretch the block has before it."""
    ends = list(accumulate(draws for _, draws in mixture))
    order = torch.randperm(ends[-1], generator=seeded(seed, "mixture", block))
    chosen = torch.bucketize(order, torch.tensor(ends), right=True).tolist()
    met = [0] * len(mixture)
    found = []
    for number in chosen:
        found.append((number, met[number]))
        met[number] += 1
    return found
