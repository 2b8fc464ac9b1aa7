"""Random numbers as a pure function of a key: generators by key, and what training draws for the rows of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def seeded(*key: int | str) -> torch.Generator:
    """A generator on the CPU that depends on the key alone; keys that differ anywhere give independent streams."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(errors="surrogatepass"), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True, slots=True)
class Draws:
    """What one process draws for its rows of one training batch: a pure function of (seed, step, row), so that a run
    draws the same after a resume and on any number of processes.

    Args:
        seed: the recipe's.
        step: optimiser step, from 0.
        rows: positions of this process's rows in the step's whole batch (all processes, all accumulated parts).
    """

    seed: int
    step: int
    rows: tuple[int, ...]

    def normal(self, purpose: str, shape: Sequence[int]) -> Tensor:
        """Unit normal (B, *shape) float32 on the CPU; `shape` is one row's."""
        made: Any = {"dtype": torch.float32, "device": "cpu"}  # whatever the process's defaults are
        rows = [torch.randn(tuple(shape), generator=self._generator(purpose, row), **made) for row in self.rows]
        return torch.stack(rows)

    def uniform(self, purpose: str) -> Tensor:
        """Numbers (B,) in [0, 1), float64 on the CPU."""
        made: Any = {"dtype": torch.float64, "device": "cpu"}
        rows = [torch.rand((), generator=self._generator(purpose, row), **made) for row in self.rows]
        return torch.stack(rows)

    def _generator(self, purpose: str, row: int) -> torch.Generator:
        return seeded(self.seed, purpose, self.step, row)
