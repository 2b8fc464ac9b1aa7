"""What one call of a network takes, as far as a part can tell without running it."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Direction: TypeAlias = Literal["encode", "decode"]


class Work(NamedTuple):
    """One call of a network.

    Args:
        bytes: of activations at its peak, what goes in and weights not counted; 0: not known.
        flops: floating-point operations, a multiplication and an addition being two; 0: not known.
    """

    bytes: int = 0
    flops: float = 0.0
