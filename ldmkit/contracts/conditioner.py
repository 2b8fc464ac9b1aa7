"""The contract of conditioners: encoding raw inputs as one signal, and its null."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ldmkit.contracts.conditioner_v1 import FormerMembers
from ldmkit.contracts.part import Part
from ldmkit.contracts.signals import Signal, SignalKind, zeros_like
from ldmkit.contracts.value import parse
from ldmkit.files.json import raw_input


class Conditioner(FormerMembers, Part, ABC):
    """Encodes raw inputs as one signal, and provides the null signal that means "no condition".

    A conditioner defines `Input`, `kind`, `dim` and `forward`; the other members have defaults. Optional abilities are
    mixins that add members of their own: see `contracts/conditioner_abilities.py`.
    """

    Input: ClassVar[Any]
    """Type of ONE sample's raw input, anything that pydantic validates; its JSON schema makes command-line options."""
    kind: SignalKind
    """Kind of the signal: set on the class, or in `__init__` if it depends on the config."""
    dim: int
    """Width of the signal: the last axis of tokens and vectors, the channels of planes and residuals."""

    @abstractmethod
    def forward(self, inputs: list[Any]) -> Signal:
        """Encode a batch of validated inputs, one row per input."""

    has_null: bool = True
    """False if leaving the condition out is meaningless (a picture to enlarge): the input is then required."""

    def null(self, like: Signal) -> Signal:
        """The signal that means "no condition", with as many rows as `like`. Zeros by default."""
        return zeros_like(like)

    def example(self, size: tuple[int, int]) -> Any | None:
        """Any valid parsed input for pictures of (height, width). When the caller leaves the condition out, the null
        takes its shape from this input. None: no such input exists, and leaving the condition out is an error."""
        return None

    def parse(self, raw: Any, where: str) -> Any:
        """Validate one raw input. Subclasses may add checks that need the config, such as the number of classes.

        Raises:
            InputError: the input is invalid; the message gives the path of the offending item.
        """
        return parse(self.Input, raw, where)

    @classmethod
    def from_text(cls, text: str) -> Any:
        """A command-line argument as a raw input: JSON, the path of a .json file, a number, or the text itself."""
        return raw_input(text)
