"""Optional abilities of conditioners: one mixin per ability, with the members that it requires.

Each mixin is a subclass of `Conditioner`: inherit those that apply, as in `class Boxes(OnGrid, SetsSize)`. A pipeline
uses the members of an ability only on conditioners that inherit it.
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
    """Encodes for latents of a given size: for planes whose inputs do not determine a size (boxes)."""

    @abstractmethod
    def on_grid(self, inputs: list[Any], grid: tuple[int, int]) -> Signal:
        """Encode for latents of grid = (h, w) cells, one row per input; called instead of `forward`."""


class SetsSize(Conditioner, ABC):
    """Has inputs that determine the size of the result: a picture to enlarge, a map, a hint. For planes."""

    @abstractmethod
    def picture_size(self, value: Any, factor: int) -> tuple[int, int] | None:
        """(height, width) in pixels that a parsed input requires, with a codec of that factor; None: any size.

        Called if the caller gave no size; the first conditioner in spec order that has an input decides.
        """


class KnowsRegion(Conditioner, ABC):
    """Has inputs that contain part of the result, such as the surroundings of the hole in inpainting."""

    @abstractmethod
    def known(self, value: Any) -> tuple[Tensor, Tensor] | None:
        """Picture (3,H,W) in [-1,1] of a parsed input, and its mask (1,H,W), 0 where the result keeps the picture's
        pixels. None: this input has no pixels to keep."""


class UsesCodec(Conditioner, ABC):
    """Encodes with the pipeline's codec, or must match its latents."""

    @abstractmethod
    def bind(self, codec: Codec) -> None:
        """Called once for each pipeline that the conditioner becomes part of, before anything is encoded.

        Store the codec in a tuple: as a plain attribute it would become a submodule and be saved with the conditioner.

        Raises:
            CompositionError: the codec does not fit, or differs from that of an earlier pipeline.
        """


class SharesWeights(Conditioner, ABC):
    """Can use another conditioner's weights instead of its own if the spec says `shares`."""

    @abstractmethod
    def adopt(self, other: Conditioner) -> None:
        """Use the weights and assets of `other` from now on, and drop one's own.

        Raises:
            CompositionError: `cannot-share`: `other` has another type or config.
        """
        raise CompositionError("cannot-share", f"{type(self).__name__} cannot share {type(other).__name__}'s weights")


class HasDefault(Conditioner, ABC):
    """Has a default input. Without a default, leaving the input out means the null."""

    @abstractmethod
    def default(self, size: tuple[int, int]) -> Any | None:
        """The parsed default input for pictures of (height, width); None: use the null."""


class Proposing(Conditioner, ABC):
    """Proposes its own input from those that the caller gave, such as a layout from a prompt.

    If a network does this, it is `proposer`, and the training stage `proposer` trains it with `proposal_losses`.
    """

    @abstractmethod
    def propose(self, given: Mapping[str, Any], size: tuple[int, int], seed: int) -> Any | None:
        """The parsed input to use if the caller gave none; None: nothing to propose.

        Called once per picture, with its seed, unless the call starts from a picture. Deterministic in its arguments.
        `given` holds parsed inputs by name, `size` is (height, width) of the picture.
        """

    @property
    def proposer(self) -> nn.Module | None:
        """The network behind `propose`, which is trained separately; None if there is none."""
        return None

    def proposal_losses(self, rows: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Tensor]:
        """Losses that train `proposer`: scalars that are summed, each a mean over rows of parsed inputs.

        Args:
            rows: parsed inputs by name, one mapping per sample.
            name: the conditioner's own input.

        Raises:
            CompositionError: `not-trainable`: not overridden; a class with a `proposer` must override it.
        """
        raise CompositionError("not-trainable", f"{type(self).__name__} has no proposer to train")


class Ported(Conditioner, ABC):
    """Publishes ports for adapters, as a denoiser does: `linear.<path>` of a text tower.

    Set `self.ports = ldmkit.linear_ports(self)` and pass `self.frame` to each `ldmkit.PortedLinear`.
    """

    ports: Mapping[str, Port] = MappingProxyType({})
    """Name -> port."""
    frame: Frame | None = None
    """Passed to the taps at its ports; None if the conditioner is called outside a pipeline: no taps are called."""

    def framed(self, frame: Frame) -> Self:
        """A shallow copy with the same weights and ports, for one encoding in which taps receive `frame`."""
        other = copy.copy(self)
        other.frame = frame
        return other


ABILITIES: tuple[type[Conditioner], ...] = (
    OnGrid, SetsSize, KnowsRegion, UsesCodec, SharesWeights, HasDefault, Proposing, Ported,
)  # fmt: skip
"""All ability mixins."""


def members(ability: type[Conditioner]) -> tuple[str, ...]:
    """Names of the members that a mixin requires or provides a default for."""
    return tuple(name for name in vars(ability) if not name.startswith("_"))
