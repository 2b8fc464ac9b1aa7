"""The contract of captioners, which describe pictures in words: for training data, not for runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from ldmkit.contracts.example import Example
from ldmkit.contracts.value import Value


class Captions(NamedTuple):
    """What a captioner says of a picture: its main subject in a few words, and everything that is in it."""

    short: str
    long: str


class Captioner(Value, ABC):
    """Describes a picture. It holds options and draws nothing; a network that it reads is loaded at the first picture.

    One thing is required: `caption`.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    """Names of the record's inputs (`layout`, `label` ...) without which it cannot describe a picture."""

    reads: ClassVar[tuple[str, ...]] = ()
    """Fields that name files or folders of weights, or None; `ldmkit data caption` records their SHA-256."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    """Configs for the kit; `inputs` are records' inputs by name, one mapping per picture."""
    api: ClassVar[int]  # as `Part` has it

    @abstractmethod
    def caption(self, picture: Tensor, facts: Mapping[str, Any]) -> Captions:
        """Describe a picture (3, H, W) float32 in [-1, 1], of which `facts` are the inputs in its record, by name.

        Both captions are lines with words in them. The same picture and facts give the same captions.

        Raises:
            InputError: the facts lack what it needs, or it cannot use them.
        """
