"""The contract of extractors, which make hint pictures: edges, drawings, poses, maps of colours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from ldmkit.contracts.example import Example
from ldmkit.contracts.value import Value, parse
from ldmkit.files.pictures import Picture


class Extractor(Value, ABC):
    """Makes a hint picture of a picture, or of keypoints or labels. It holds options, never state, and draws nothing.

    Two things are required: `extract`, and `Input` where that is not a picture.
    """

    Input: ClassVar[Any] = Picture
    """The type of ONE raw input, anything pydantic validates and writes as JSON, as recipes hold it. By default a
    picture: parsed, (3, H, W) float32 in [-1, 1]."""

    reads: ClassVar[tuple[str, ...]] = ()
    """Fields that name files or folders of weights, or None. A recipe holds their SHA-256, and replay compares them."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]  # both as `Part` has them

    @abstractmethod
    def extract(self, value: Any) -> Tensor:
        """The hint of a parsed input: (3, H, W) float32 in [-1, 1] on the CPU, in memory of its own.

        Values are 8-bit levels, k / 127.5 - 1, so that the hint is the same when it is written to a PNG and read again
        (`ldmkit.from_levels`). A pixel about which the hint says nothing is `ldmkit.MASKED` in all channels.

        Raises:
            InputError: the input does not fit the options, such as a label that has no colour.
        """

    def hint_size(self, value: Any) -> tuple[int, int]:
        """(height, width) of the hint of a parsed input, by default the picture's."""
        return int(value.shape[-2]), int(value.shape[-1])

    @classmethod
    def parse(cls, raw: Any, where: str) -> Any:
        """One raw input, validated.

        Raises:
            InputError: with the path of the offending item.
        """
        return parse(cls.Input, raw, where)

    @classmethod
    def from_text(cls, text: str) -> Any:
        """A command-line argument as a raw input: the text as it is, which for a picture is its path."""
        return text
