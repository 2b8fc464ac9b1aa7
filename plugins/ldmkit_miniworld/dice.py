"""Seeded random numbers that are the same in every process and on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
_BLOCK = 128


class Dice:
    """Draws from a stream that its name alone determines (PCG64, seeded by BLAKE2 of the name).

    Uniform numbers are drawn in blocks: one by one they would cost more than the drawing of a picture.
    """

    def __init__(self, name: str):
        digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
        self._generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
        self._block: list[float] = []

    def unit(self) -> float:
        """A number in [0, 1)."""
        if not self._block:
            self._block = self._generator.random(_BLOCK).tolist()
        return self._block.pop()

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.unit()

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.unit() < probability

    def integer(self, low: int, high: int) -> int:
        """A whole number, low and high included."""
        return low + int(self.unit() * (high - low + 1))

    def pick(self, choices: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of the choices, evenly or by weight."""
        if weights is None:
            return choices[int(self.unit() * len(choices))]
        at = self.unit() * sum(weights)
        for choice, weight in zip(choices, weights, strict=True):
            at -= weight
            if at < 0:
                return choice
        return choices[-1]

    def field(self, rows: int, columns: int) -> np.ndarray:
        """(rows, columns) float32 in [-1, 1)."""
        return self._generator.random((rows, columns), dtype=np.float32) * 2 - 1
