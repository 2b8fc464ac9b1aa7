"""Extractors that break one promise each."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import PlainValidator, WithJsonSchema
from torch import Tensor

from ldmkit import MASKED, Example, Extractor, InputError, from_levels, to_levels


class Inverted(Extractor):
    """The picture's complement, as a third party would write it."""

    def extract(self, value: Tensor) -> Tensor:
        return from_levels(255 - to_levels(value))


class HalfMasked(Extractor):
    """The picture, unknown where it is dark: right as well."""

    def extract(self, value: Tensor) -> Tensor:
        dark = (value < 0).all(dim=0)
        return torch.where(dark, MASKED, from_levels(to_levels(value)))


class Rows(Extractor):
    """Takes numbers rather than pictures: a row of levels. Right as well."""

    Input: ClassVar[Any] = list[int]
    examples: ClassVar[tuple[Example, ...]] = (Example(inputs=([0, 255], [1, 2])),)

    def extract(self, value: list[int]) -> Tensor:
        if not value or not all(0 <= one <= 255 for one in value):
            raise InputError("level", "no levels", where="inputs", fits="integers from 0 to 255")
        return from_levels(np.array([value], np.uint8))

    def hint_size(self, value: list[int]) -> tuple[int, int]:
        return 1, len(value)


class NoInputs(Rows):
    examples: ClassVar[tuple[Example, ...]] = (Example(inputs=([0],)),)


class InUnits(Inverted):
    """Between levels."""

    def extract(self, value: Tensor) -> Tensor:
        return super().extract(value) * 0.999


class TooLarge(Inverted):
    def extract(self, value: Tensor) -> Tensor:
        return 2 * super().extract(value)


class Grey(Inverted):
    """One channel."""

    def extract(self, value: Tensor) -> Tensor:
        return super().extract(value)[:1]


class MaskedInRed(Inverted):
    def extract(self, value: Tensor) -> Tensor:
        found = super().extract(value)
        found[0] = MASKED
        return found


class Alias(Extractor):
    """Gives the caller's own memory."""

    def extract(self, value: Tensor) -> Tensor:
        return value


class Halved(Inverted):
    def extract(self, value: Tensor) -> Tensor:
        return super().extract(value[:, ::2, ::2])


class SaysTensor(Inverted):
    def hint_size(self, value: Tensor) -> Any:
        return value.shape


class Noisy(Inverted):
    def extract(self, value: Tensor) -> Tensor:
        return from_levels(to_levels(value) ^ np.random.randint(0, 2, dtype=np.uint8))


class Remembers(Inverted):
    """Differs after another picture."""

    seen: ClassVar[list[Tensor]] = []

    def extract(self, value: Tensor) -> Tensor:
        before = self.seen[-1].shape if self.seen else value.shape
        self.seen[:] = [value]
        return super().extract(value if before == value.shape else -value)


class Writes(Inverted):
    def extract(self, value: Tensor) -> Tensor:
        return super().extract(value.neg_())


class Constant(Inverted):
    def extract(self, value: Tensor) -> Tensor:
        return torch.zeros_like(value).sub_(1)


class Deaf(Rows):
    """Takes what JSON does not have."""

    Input: ClassVar[Any] = Annotated[
        Any, PlainValidator(lambda raw: np.array(raw, np.uint8)), WithJsonSchema({"type": "array"})
    ]

    def extract(self, value: Any) -> Tensor:
        return from_levels(np.atleast_2d(value))

    def hint_size(self, value: Any) -> tuple[int, int]:
        return 1, len(value)


class Trusting(Rows):
    def extract(self, value: list[int]) -> Tensor:
        return from_levels((np.array([value], np.int64) & 255).astype(np.uint8))


class Counting(Inverted):
    @classmethod
    def from_text(cls, text: str) -> Any:
        return int(text)


BROKEN: dict[str, list[type[Any]]] = {
    "valid-inputs": [NoInputs],
    "hint": [InUnits, TooLarge, Grey, MaskedInRed, Alias],
    "size": [Halved, SaysTensor],
    "deterministic": [Noisy, Remembers],
    "inputs-untouched": [Writes],
    "tells-apart": [Constant],
    "input-json": [Deaf],
    "hostile-inputs": [Trusting],
    "command-line": [Counting],
}
