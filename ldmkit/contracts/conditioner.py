"""The contract of conditioners: raw input to one signal, and its null."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from ldmkit.contracts.codec import Codec
from ldmkit.contracts.part import Part
from ldmkit.contracts.ports import Port
from ldmkit.contracts.signals import Signal, SignalKind, zeros_like
from ldmkit.contracts.step import Frame
from ldmkit.contracts.value import parse
from ldmkit.errors import CompositionError
from ldmkit.files.json import raw_input


class Conditioner(Part, ABC):
    """Raw input -> one signal, and its null.

    `Input` is the type of ONE sample's raw input, anything pydantic validates; its JSON schema is what the
    command line is made from.
    """

    Input: ClassVar[Any]
    kind: SignalKind
    """Set on the class, or by `__init__` where the config decides."""
    dim: int
    ports: Mapping[str, Port] = MappingProxyType({})
    """Places for adapters, as a denoiser has them: `linear.<path>` of a text tower. Called with `self.frame`."""
    frame: Frame | None = None
    """What taps at its ports are called with; None where it is called by itself, and taps are left alone."""
    has_null: bool = True
    """False where leaving the condition out has no meaning (a picture to enlarge): the input is then required."""

    @abstractmethod
    def forward(self, inputs: list[Any]) -> Signal:
        """Encode a batch of validated inputs: one row each."""

    def framed(self, frame: Frame) -> Self:
        """The same weights and ports, for one encoding in which taps see `frame`."""
        other = copy.copy(self)
        other.frame = frame
        return other

    def on_grid(self, inputs: list[Any], grid: tuple[int, int]) -> Signal:
        """`forward` for latents of grid = (h, w) cells; for planes whose inputs do not tell their size (boxes)."""
        signal: Signal = self(inputs)
        return signal

    def null(self, like: Signal) -> Signal:
        """The signal that means "no condition", with the rows of `like`. Zeros by default."""
        return zeros_like(like)

    def default(self, size: tuple[int, int]) -> Any | None:
        """The input to assume where the caller gave none, for pictures of (height, width); None: use the null."""
        return None

    def example(self, size: tuple[int, int]) -> Any | None:
        """Some valid raw input for pictures of (height, width), whatever it says: it gives the null its shape
        where the caller left the condition out. None: there is no such input, and leaving it out is an error."""
        return None

    def propose(self, given: Mapping[str, Any], size: tuple[int, int], seed: int) -> Any | None:
        """The parsed input to draw with where the caller gave none, made up from those that it gave; None: nothing.

        Asked once a picture, with its seed, where no picture is started from; the same for the same arguments.
        `given` holds parsed inputs by name.
        """
        return None

    @property
    def proposer(self) -> nn.Module | None:
        """The network behind `propose`, which is trained apart from the rest; None: there is none."""
        return None

    def proposal_losses(self, rows: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Tensor]:
        """What trains `proposer`: scalars to be added up, means over rows of parsed inputs; `name` is its own input."""
        raise CompositionError("not-trainable", f"{type(self).__name__} has no proposer to train")

    def picture_size(self, value: Any, factor: int) -> tuple[int, int] | None:
        """(height, width) of the pictures that a parsed input of a plane asks for, for a codec of that factor."""
        return None

    def known(self, value: Any) -> tuple[Tensor, Tensor] | None:
        """Picture (3,H,W) in [-1,1] of a parsed input that the result must keep where its mask (1,H,W) is 0."""
        return None

    def bind(self, codec: Codec) -> None:
        """Called once when a pipeline is composed, for conditioners that use its codec, or must fit its latents."""

    def adopt(self, other: Conditioner) -> None:
        """Use `other`'s weights (spec: `shares`). Optional."""
        raise CompositionError("cannot-share", f"{type(self).__name__} cannot share {type(other).__name__}'s weights")

    def parse(self, raw: Any, where: str) -> Any:
        """One raw input, validated; subclasses may add checks that need the config (class counts ...).

        Raises:
            InputError: with the path of the offending item.
        """
        return parse(self.Input, raw, where)

    @classmethod
    def from_text(cls, text: str) -> Any:
        """A command-line argument as a raw input: JSON, the path of a .json file, a number, or the text itself."""
        return raw_input(text)
