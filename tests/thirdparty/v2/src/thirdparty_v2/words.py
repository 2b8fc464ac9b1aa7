"""Letters as tokens, by a layer with ports; and their mean as a vector, which can read the other's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

import ldmkit

Text = Annotated[str, Field(min_length=1, max_length=12)]


class WordsConfig(ldmkit.Value):
    """Args: dim of the signal; width inside."""

    dim: int = Field(default=6, ge=1)
    width: int = Field(default=4, ge=1)


class Words(ldmkit.Ported):
    """A short text as tokens (B,L,dim) with a mask: a letter each. Ports: `linear.last`."""

    api = 2
    Config = WordsConfig
    config: WordsConfig
    Input = Text
    kind = "tokens"
    examples = (ldmkit.Example(inputs=("a", "bcd", "hello")),)

    def __init__(self, config: WordsConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.dim = self.config.dim
        self.letters: nn.Module = nn.Embedding(128, self.config.width)
        self.last = ldmkit.PortedLinear(self.config.width, self.dim)
        self.ports = ldmkit.linear_ports(self)

    def forward(self, inputs: list[str]) -> ldmkit.Tokens:
        """Shorter texts are padded, and the padding masked."""
        length = max(map(len, inputs))
        ids = [[min(ord(letter), 127) for letter in text.ljust(length, "\0")] for text in inputs]
        value: Tensor = self.last(self.letters(torch.tensor(ids, device=self.device)), self.frame)
        mask = torch.arange(length, device=self.device) < torch.tensor([[len(text)] for text in inputs]).to(self.device)
        return ldmkit.Tokens(value, mask)

    def example(self, size: tuple[int, int]) -> str:
        """One letter."""
        return "a"


class Mood(ldmkit.SharesWeights):
    """A short text as a vector (B,dim): the mean of its letters, which may be those of a `Words`."""

    api = 2
    Config = WordsConfig
    config: WordsConfig
    Input = Text
    kind = "vector"
    examples = (ldmkit.Example({"dim": 4}, inputs=("a", "bcd", "hello")),)

    def __init__(self, config: WordsConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.dim = self.config.dim
        self.letters: nn.Module | None = nn.Embedding(128, self.config.width)
        self._owner: tuple[Words, ...] = ()

    def forward(self, inputs: list[str]) -> ldmkit.Vector:
        """The mean, repeated to the signal's width."""
        letters = self._owner[0].letters if self._owner else self.letters
        assert letters is not None
        device = next(letters.parameters()).device
        rows = [letters(torch.tensor([min(ord(one), 127) for one in text], device=device)).mean(0) for text in inputs]
        places = torch.arange(self.dim, device=device) % self.config.width
        return ldmkit.Vector(torch.stack(rows)[:, places])

    def example(self, size: tuple[int, int]) -> str:
        """One letter."""
        return "a"

    def adopt(self, other: ldmkit.Conditioner) -> None:
        """The letters of a `Words` of the same width."""
        if not isinstance(other, Words) or other.config.width != self.config.width:
            super().adopt(other)
        assert isinstance(other, Words)
        self.letters, self._owner = None, (other,)
