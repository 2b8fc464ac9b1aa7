"""The randomness of training as a pure function of (seed, step, row): the same after a resume and on any number of
processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ldmkit.run.noise import seeded


@dataclass(frozen=True, slots=True)
class Draws:
    """What one process draws for its rows of one batch.

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
        made = {"dtype": torch.float32, "device": "cpu"}  # whatever the process's defaults are
        rows = [torch.randn(tuple(shape), generator=self._generator(purpose, row), **made) for row in self.rows]
        return torch.stack(rows)

    def uniform(self, purpose: str) -> Tensor:
        """Numbers (B,) in [0, 1), float64 on the CPU."""
        made = {"dtype": torch.float64, "device": "cpu"}
        rows = [torch.rand((), generator=self._generator(purpose, row), **made) for row in self.rows]
        return torch.stack(rows)

    def _generator(self, purpose: str, row: int) -> torch.Generator:
        return seeded(self.seed, purpose, self.step, row)
