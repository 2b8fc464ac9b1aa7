"""The contract of conditioners: raw input to one signal, and its null."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ldmkit.contracts.conditioner_v1 import FormerMembers
from ldmkit.contracts.part import Part
from ldmkit.contracts.signals import Signal, SignalKind, zeros_like
from ldmkit.contracts.value import parse
from ldmkit.files.json import raw_input


class Conditioner(FormerMembers, Part, ABC):
    """Raw input -> one signal, and its null.

    Every conditioner writes four things: `Input`, `kind`, `dim` and `forward`; what follows them here has a default.
    Further abilities are mixins, of which each asks for members of its own: see `contracts/conditioner_abilities.py`.
    """

    Input: ClassVar[Any]
    """The type of ONE sample's raw input, anything pydantic validates; its JSON schema makes the command line."""
    kind: SignalKind
    """Set on the class, or by `__init__` where the config decides."""
    dim: int
    """Width of the signal: of tokens and vectors their last axis, of a plane and of residuals their channels."""

    @abstractmethod
    def forward(self, inputs: list[Any]) -> Signal:
        """Encode a batch of validated inputs: one row each."""

    has_null: bool = True
    """False where leaving the condition out has no meaning (a picture to enlarge): the input is then required."""

    def null(self, like: Signal) -> Signal:
        """The signal that means "no condition", with the rows of `like`. Zeros by default."""
        return zeros_like(like)

    def example(self, size: tuple[int, int]) -> Any | None:
        """Some valid parsed input for pictures of (height, width), whatever it says: it gives the null its shape
        where the caller left the condition out. None: there is no such input, and leaving it out is an error."""
        return None

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
