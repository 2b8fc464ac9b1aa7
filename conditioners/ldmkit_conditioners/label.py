"""Class labels: an embedding table, with or without a null class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from pydantic import Field, PlainValidator, WithJsonSchema, model_validator
from torch import Tensor, nn

from ldmkit import (
    CompositionError,
    Conditioner,
    Example,
    InputError,
    Signal,
    SignalKind,
    Tokens,
    Value,
    Vector,
    rows_of,
    shown,
    suggest,
)
from ldmkit.bounds import Rows, Width


def read_class(raw: Any) -> int | str:
    """A class by number or name; whether it exists is checked against the config later."""
    if isinstance(raw, str) or (isinstance(raw, int) and not isinstance(raw, bool)):
        return raw
    raise InputError("label-type", f"a {type(raw).__name__} is not a class", fits="a class number, or a name")


ClassInput: TypeAlias = Annotated[
    int | str,
    PlainValidator(read_class),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}], "title": "Class"}),
]
"""Pydantic type of a class: its number, or its name if the config lists names."""


def class_number(
    raw: int | str, n_classes: int, names: Sequence[str], where: str | None = None, null: int | None = None
) -> int:
    """The number of a class. Strings of digits, as from the command line, count as numbers.

    Args:
        null: the number of the null class, which is refused: callers who count from 1 would select it by accident and
            get pictures without a class.

    Raises:
        InputError: out of range, an unknown name, a name for classes without names; `null-class`.
    """
    if isinstance(raw, str) and raw in names:
        return names.index(raw)
    if isinstance(raw, str) and not (raw.isascii() and raw.isdecimal() and len(raw) < 20):
        fits = suggest(raw, names) if names else f"this model's classes have no names: {_numbers(n_classes, null)}"
        raise InputError("unknown-label", f"there is no class {shown(raw)}", where=where, fits=fits)
    number = int(raw)
    if not 0 <= number < n_classes:
        raise InputError("label-range", f"class {number}", where=where, fits=_numbers(n_classes, null))
    if number == null:
        what = f"class {number} is the null class, which stands for no class"
        fits = f"{_numbers(n_classes, null)}; leave the input out for no class"
        raise InputError("null-class", what, where=where, fits=fits)
    return number


def _numbers(n_classes: int, null: int | None) -> str:
    gap = n_classes if null is None else null
    spans = [(first, last) for first, last in ((0, gap - 1), (gap + 1, n_classes - 1)) if first <= last]
    return ", ".join(f"{first} to {last}" for first, last in spans) or "none"


def check_names(names: Sequence[str], n_classes: int) -> None:
    """
    Raises:
        ValueError: names that occur twice, or more than there are classes.
    """
    if len(names) > n_classes or len(set(names)) < len(names):
        raise ValueError(f"{len(names)} names, some twice or too many for {n_classes} classes")


class LabelConfig(Value):
    """
    Args:
        n_classes: rows of the table, including the null class.
        null_class: the row that means "no class", if any.
        emit: one token (B, 1, dim) for cross-attention, or a vector (B, dim).
        names: names of the classes, in order; may be shorter than n_classes (the null class needs none).
        zero_null: use zeros for "no class" if there is no null class.
    """

    n_classes: Rows = 1000
    dim: Width = 512
    null_class: int | None = Field(default=None, ge=0)
    emit: Literal["tokens", "vector"] = "tokens"
    names: tuple[str, ...] = ()
    zero_null: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> LabelConfig:
        if self.null_class is not None and self.null_class >= self.n_classes:
            raise ValueError(f"null_class {self.null_class} is not below n_classes {self.n_classes}")
        check_names(self.names, self.n_classes)
        return self


class Label(Conditioner):
    """A class as one token or one vector (arXiv:2112.10752, appendix E.2.1: a single learnable layer)."""

    Config: ClassVar[type[LabelConfig]] = LabelConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example({"n_classes": 5, "dim": 8, "null_class": 4, "names": ["cat", "dog"]}, (0, "dog", "3", 2)),
        Example({"n_classes": 5, "dim": 8, "emit": "vector", "zero_null": True}, (0, 1, 2)),
        Example({"n_classes": 5, "dim": 8}),
    )
    Input: ClassVar[Any] = ClassInput

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.kind: SignalKind = self.config.emit
        self.dim = self.config.dim
        self.has_null = self.config.null_class is not None or self.config.zero_null
        self.embedding = nn.Embedding(self.config.n_classes, self.config.dim)

    def parse(self, raw: Any, where: str) -> int:
        config = self.config
        return class_number(super().parse(raw, where), config.n_classes, config.names, where, config.null_class)

    def example(self, size: tuple[int, int]) -> int:
        return 0

    def forward(self, inputs: list[int | str]) -> Signal:
        numbers = [class_number(raw, self.config.n_classes, self.config.names) for raw in inputs]
        return self._signal(self.embedding(torch.tensor(numbers, device=self.embedding.weight.device)))

    def null(self, like: Signal) -> Signal:
        if self.config.null_class is not None:
            return self._signal(self.embedding.weight[self.config.null_class].expand(rows_of(like), -1))
        if self.config.zero_null:
            return super().null(like)
        fits = "guidance 'none', or a config with null_class or zero_null"
        raise CompositionError("no-null", "this model was trained without a null class", where="label", fits=fits)

    def _signal(self, rows: Tensor) -> Signal:
        return Tokens(rows[:, None]) if self.config.emit == "tokens" else Vector(rows)
