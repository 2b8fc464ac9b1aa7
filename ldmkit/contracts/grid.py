"""The contract of grids: which noise levels a run visits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ldmkit.contracts.example import Example
from ldmkit.contracts.process import Process
from ldmkit.contracts.step import Arrivals
from ldmkit.contracts.value import Value


class Grid(Value, ABC):
    """Which sigmas a run visits."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]  # both as `Part` has them

    @property
    def own_steps(self) -> int | None:
        """The only number of steps it makes, whatever is asked for; None: any."""
        return None

    @abstractmethod
    def sigmas(self, process: Process, steps: int) -> list[float]:
        """steps + 1 strictly decreasing values; the last may be 0 or the process's smallest."""

    def at_size(self, size: tuple[int, ...]) -> Grid:
        """The grid of a run with latents of this size, (h, w) for pictures; itself where sizes do not matter.

        Large pictures keep more of what is coarse at the same noise level, so some models' levels rise with the size.
        """
        return self

    def arrivals(self, process: Process, steps: int) -> Arrivals | None:
        """Where the steps from these sigmas go; None: each to the next."""
        return None
