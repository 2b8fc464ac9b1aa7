"""The contract of grids, which choose the noise levels of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ldmkit.contracts.example import Example
from ldmkit.contracts.process import Process
from ldmkit.contracts.step import Arrivals
from ldmkit.contracts.value import Value


class Grid(Value, ABC):
    """Chooses the sigmas of a run."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]  # both as `Part` has them

    @property
    def own_steps(self) -> int | None:
        """The number of steps of a grid that has a fixed one, which overrides the requested number; None otherwise."""
        return None

    @abstractmethod
    def sigmas(self, process: Process, steps: int) -> list[float]:
        """steps + 1 strictly decreasing values; the last may be 0 or the process's `sigma_min`."""

    def at_size(self, size: tuple[int, ...]) -> Grid:
        """The grid for a run with latents of this size, (h, w) for pictures; itself if it does not depend on the size.

        At the same noise level larger pictures retain more coarse structure, so some models raise the levels with size.
        """
        return self

    def arrivals(self, process: Process, steps: int) -> Arrivals | None:
        """Where the steps from these sigmas end; None if each ends at the next sigma."""
        return None
