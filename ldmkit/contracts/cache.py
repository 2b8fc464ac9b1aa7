"""The contract of caches, which compute some x0 estimates from earlier ones instead of calling the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ldmkit.contracts.example import Example
from ldmkit.contracts.step import Denoise
from ldmkit.contracts.value import Value

if TYPE_CHECKING:
    from ldmkit.contracts.process import Process


class Cache(Value, ABC):
    """Decides which calls of `denoise` are computed from earlier ones, and how. It holds options, never state."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]  # both as `Part` has them

    @abstractmethod
    def around(self, denoise: Denoise, process: Process, sigmas: tuple[float, ...]) -> Denoise:
        """A cached `denoise` for one run. It owns its state; every run calls `around` again.

        Rows of a batch are independent: the result for a row, and whether it is cached, depends on no other row. The
        first call of a run always evaluates the network.

        Args:
            denoise: guided x0 estimates (B, C, ...) of x = x0 + sigma n.
            sigmas: noise levels of the run, ending in 0; samplers may also call at levels in between and above.
        """

    def evaluations(self, calls: int) -> int:
        """How many of a run's `calls` reach the network, if that is known in advance; `calls` by default."""
        return calls
