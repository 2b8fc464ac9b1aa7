"""Members that every conditioner had in version 1 of the contract, and that are now members of mixins.

They are kept while version 1 is supported: callers still find the defaults, and classes that override a member without
inheriting its mixin keep working (`ldmkit/models/abilities.py` tells them what to inherit).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from torch import Tensor, nn

from ldmkit.contracts.codec import Codec
from ldmkit.contracts.ports import Port
from ldmkit.contracts.signals import Signal
from ldmkit.contracts.step import Frame
from ldmkit.errors import CompositionError


class FormerMembers:
    """Defaults for conditioners that lack an ability; each mixin documents its members."""

    ports: Mapping[str, Port] = MappingProxyType({})
    """See `Ported`."""
    frame: Frame | None = None
    """See `Ported`."""

    def framed(self, frame: Frame) -> Self:
        """See `Ported`."""
        other = copy.copy(self)
        other.frame = frame
        return other

    def on_grid(self, inputs: list[Any], grid: tuple[int, int]) -> Signal:
        """See `OnGrid`. Calls `forward` by default."""
        signal: Signal = self(inputs)  # type: ignore[operator]
        return signal

    def default(self, size: tuple[int, int]) -> Any | None:
        """See `HasDefault`."""
        return None

    def propose(self, given: Mapping[str, Any], size: tuple[int, int], seed: int) -> Any | None:
        """See `Proposing`."""
        return None

    @property
    def proposer(self) -> nn.Module | None:
        """See `Proposing`."""
        return None

    def proposal_losses(self, rows: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Tensor]:
        """See `Proposing`."""
        raise CompositionError("not-trainable", f"{type(self).__name__} has no proposer to train")

    def picture_size(self, value: Any, factor: int) -> tuple[int, int] | None:
        """See `SetsSize`."""
        return None

    def known(self, value: Any) -> tuple[Tensor, Tensor] | None:
        """See `KnowsRegion`."""
        return None

    def bind(self, codec: Codec) -> None:
        """See `UsesCodec`."""

    def adopt(self, other: Any) -> None:
        """See `SharesWeights`."""
        raise CompositionError("cannot-share", f"{type(self).__name__} cannot share {type(other).__name__}'s weights")
