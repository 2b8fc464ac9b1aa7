"""What a conditioner may be able to do beyond encoding: one mixin an ability, with the members that it asks for.

A mixin is a `Conditioner`: inherit those that apply, `class Boxes(OnGrid, SetsSize)`, before or instead of
`Conditioner` itself. A pipeline asks only those conditioners that inherit an ability for its members.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from torch import Tensor, nn

from ldmkit.contracts.codec import Codec
from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.ports import Port
from ldmkit.contracts.signals import Signal
from ldmkit.contracts.step import Frame
from ldmkit.errors import CompositionError


class OnGrid(Conditioner, ABC):
    """Encodes for latents of a given size: for planes whose inputs do not tell their size (boxes)."""

    @abstractmethod
    def on_grid(self, inputs: list[Any], grid: tuple[int, int]) -> Signal:
        """`forward` for latents of grid = (h, w) cells, one row an input; called in the place of `forward`."""


class SetsSize(Conditioner, ABC):
    """Has inputs that determine how large the picture is: a picture to enlarge, a map, a hint. For planes."""

    @abstractmethod
    def picture_size(self, value: Any, factor: int) -> tuple[int, int] | None:
        """(height, width) in pixels that a parsed input asks for, with a codec of that factor; None: any.

        Asked where the caller gave no size; the first conditioner in spec order that has an input decides.
        """


class KnowsRegion(Conditioner, ABC):
    """Has inputs that hold a part of the result: what is around the hole of inpainting."""

    @abstractmethod
    def known(self, value: Any) -> tuple[Tensor, Tensor] | None:
        """Picture (3,H,W) in [-1,1] of a parsed input, and its mask (1,H,W), 0 where the result keeps the picture's
        pixels. None: this input holds nothing to keep."""


class UsesCodec(Conditioner, ABC):
    """Encodes with the pipeline's codec, or has to fit its latents."""

    @abstractmethod
    def bind(self, codec: Codec) -> None:
        """Called once for each pipeline that is composed with it, before anything is encoded.

        Keep a codec in a tuple, or its weights are registered, and saved, as the conditioner's own.

        Raises:
            CompositionError: the codec does not fit, or is another than that of an earlier pipeline.
        """


class SharesWeights(Conditioner, ABC):
    """Can read another conditioner's weights instead of holding its own, where a spec says `shares`."""

    @abstractmethod
    def adopt(self, other: Conditioner) -> None:
        """Use `other`'s weights and assets from now on, and hold none of one's own.

        Raises:
            CompositionError: `cannot-share`: `other` is of another kind, or another config.
        """
        raise CompositionError("cannot-share", f"{type(self).__name__} cannot share {type(other).__name__}'s weights")


class HasDefault(Conditioner, ABC):
    """Has an input to assume where the caller gave none; without one, an input that is left out is the null."""

    @abstractmethod
    def default(self, size: tuple[int, int]) -> Any | None:
        """The parsed input to assume for pictures of (height, width); None: use the null."""


class Proposing(Conditioner, ABC):
    """Makes its own input up from those that the caller gave: a layout from a prompt.

    Where a network does it, that is `proposer`, and `stage: proposer` trains it with `proposal_losses`.
    """

    @abstractmethod
    def propose(self, given: Mapping[str, Any], size: tuple[int, int], seed: int) -> Any | None:
        """The parsed input to draw with where the caller gave none; None: nothing can be made up.

        Asked once a picture, with its seed, where no picture is started from; the same for the same arguments.
        `given` holds parsed inputs by name, `size` is (height, width) of the picture.
        """

    @property
    def proposer(self) -> nn.Module | None:
        """The network behind `propose`, which is trained apart from the rest; None: there is none."""
        return None

    def proposal_losses(self, rows: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Tensor]:
        """What trains `proposer`: scalars to be added up, means over rows of parsed inputs; `name` is its own input.

        Raises:
            CompositionError: `not-trainable`, unless overridden; a class with a `proposer` overrides it.
        """
        raise CompositionError("not-trainable", f"{type(self).__name__} has no proposer to train")


class Ported(Conditioner, ABC):
    """Publishes places for adapters, as a denoiser does: `linear.<path>` of a text tower.

    Set `self.ports = ldmkit.linear_ports(self)` and hand `self.frame` to each `ldmkit.PortedLinear`.
    """

    ports: Mapping[str, Port] = MappingProxyType({})
    """Name -> port."""
    frame: Frame | None = None
    """What taps at its ports are called with; None where it is called by itself, and taps are left alone."""

    def framed(self, frame: Frame) -> Self:
        """The same weights and ports, for one encoding in which taps see `frame`."""
        other = copy.copy(self)
        other.frame = frame
        return other


ABILITIES: tuple[type[Conditioner], ...] = (
    OnGrid, SetsSize, KnowsRegion, UsesCodec, SharesWeights, HasDefault, Proposing, Ported,
)  # fmt: skip
"""All mixins."""


def members(ability: type[Conditioner]) -> tuple[str, ...]:
    """Names that a mixin asks for, or gives a default of."""
    return tuple(name for name in vars(ability) if not name.startswith("_"))
