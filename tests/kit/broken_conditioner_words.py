"""Conditioners that learn words and break their promise."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from broken_conditioner import breaks
from torch import Tensor, nn

from ldmkit import Example, InputError, LearnsTokens, SignalKind, Vector


class Reader(LearnsTokens):
    """A text as the mean of its words' vectors, of which `red` and `blue` are known from the beginning."""

    api = 2
    examples: ClassVar[tuple[Example, ...]] = (Example(inputs=("red", "blue")),)
    Input: ClassVar[Any] = str
    kind: SignalKind = "vector"
    dim = 4
    token_width = 4
    token_room = 5

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.known = ["red", "blue"]
        self.table = nn.Parameter(torch.randn(2, 4))

    def forward(self, inputs: list[str]) -> Vector:
        ids = [[self.known.index(word) for word in text.split() if word in self.known] for text in inputs]
        return Vector(torch.stack([self.table[row].mean(0) if row else self.table.sum(0) * 0 for row in ids]))

    def learn_token(self, token: str, vectors: Tensor) -> None:
        if token in self.known:
            raise InputError("token-taken", f"{token} is known")
        self.known = [*self.known, token]
        self.table = nn.Parameter(torch.cat([self.table.detach(), vectors.mean(0, keepdim=True)]))


@breaks("learnt-words")
class Overwrites(Reader):
    """Puts the word in the place of another."""

    def learn_token(self, token: str, vectors: Tensor) -> None:
        if token in self.known:
            raise InputError("token-taken", f"{token} is known")
        self.known = [token, *self.known[1:]]
        with torch.no_grad():
            self.table[0] = vectors.mean(0)


@breaks("learnt-words")
class Shifts(Reader):
    """Gives other words other vectors."""

    def learn_token(self, token: str, vectors: Tensor) -> None:
        if token in self.known:
            raise InputError("token-taken", f"{token} is known")
        self.known = [*self.known, token]
        self.table = nn.Parameter(torch.cat([vectors.mean(0, keepdim=True), self.table.detach()]))


@breaks("learnt-words")
class Forgets(Reader):
    """Takes a word twice."""

    def learn_token(self, token: str, vectors: Tensor) -> None:
        self.known = [*self.known, token]
        self.table = nn.Parameter(torch.cat([self.table.detach(), vectors.mean(0, keepdim=True)]))
