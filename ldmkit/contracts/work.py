"""The estimated cost of one call of a network, which a part can give without running it."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Direction: TypeAlias = Literal["encode", "decode"]


class Work(NamedTuple):
    """The estimated cost of one call of a network.

    Args:
        bytes: peak memory of activations, without inputs and weights; 0 if unknown.
        flops: floating-point operations, counting a multiply-add as two; 0 if unknown.
    """

    bytes: int = 0
    flops: float = 0.0
