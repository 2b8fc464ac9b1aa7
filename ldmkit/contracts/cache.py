"""The contract of caches: runs in which some estimates are made of earlier ones instead of a call of the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ldmkit.contracts.example import Example
from ldmkit.contracts.step import Denoise
from ldmkit.contracts.value import Value

if TYPE_CHECKING:
    from ldmkit.contracts.process import Process


class Cache(Value, ABC):
    """Which calls of `denoise` are answered from earlier ones, and how. The value holds options, never a state."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]  # both as `Part` has them

    @abstractmethod
    def around(self, denoise: Denoise, process: Process, sigmas: tuple[float, ...]) -> Denoise:
        """`denoise` for one run. What it remembers is its own: every run gets a new one.

        Rows of a batch are pictures of their own: what is made of one row, and whether, depends on no other row. The
        first call of a run is always one of the network.

        Args:
            denoise: guided x0 estimates (B, C, ...) of x = x0 + sigma n.
            sigmas: that the run visits, the last of them 0; samplers may call at others in between, and above.
        """

    def evaluations(self, calls: int) -> int:
        """How many of a run's `calls` reach the network, as far as that is known before; all of them by default."""
        return calls
