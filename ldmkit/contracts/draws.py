"""Random numbers as a pure function of a key: keyed generators, and the random draws of a training batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def seeded(*key: int | str) -> torch.Generator:
    """A CPU generator seeded from the key alone; different keys give independent streams."""
    return torch.Generator("cpu").manual_seed(seed_of(*key))


def seed_of(*key: int | str) -> int:
    """A seed, 0 <= seed < 2**63, that depends on the key alone."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True, slots=True)
class Draws:
    """Random draws for one process's rows of a training batch: a pure function of (seed, step, row), so they are the
    same after a resume and for any number of processes.

    Args:
        seed: the recipe's seed.
        step: optimiser step, from 0.
        rows: indices of this process's rows in the global batch of the step (all processes and accumulation steps).
    """

    seed: int
    step: int
    rows: tuple[int, ...]

    def normal(self, purpose: str, shape: Sequence[int]) -> Tensor:
        """Unit normal (B, *shape) float32 on the CPU; `shape` is the shape of one row."""
        options: Any = {"dtype": torch.float32, "device": "cpu"}  # independent of torch's defaults
        rows = [torch.randn(tuple(shape), generator=self._generator(purpose, row), **options) for row in self.rows]
        return torch.stack(rows)

    def seeds(self, purpose: str) -> tuple[int, ...]:
        """A seed a row, 0 <= seed < 2**63."""
        return tuple(seed_of(self.seed, purpose, self.step, row) for row in self.rows)

    def uniform(self, purpose: str) -> Tensor:
        """Uniform numbers (B,) in [0, 1), float64 on the CPU."""
        options: Any = {"dtype": torch.float64, "device": "cpu"}
        rows = [torch.rand((), generator=self._generator(purpose, row), **options) for row in self.rows]
        return torch.stack(rows)

    def _generator(self, purpose: str, row: int) -> torch.Generator:
        return seeded(self.seed, purpose, self.step, row)
