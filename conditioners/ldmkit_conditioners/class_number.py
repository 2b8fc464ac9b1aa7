"""Classes by number, for networks with a table of classes of their own."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from pydantic import model_validator

from ldmkit import Conditioner, Example, SignalKind, Value, Vector
from ldmkit.bounds import Rows
from ldmkit_conditioners.label import ClassInput, check_names, class_number


class ClassNumberConfig(Value):
    """
    Args:
        n_classes: rows of the network's table.
        names: names of the classes, in order; may be shorter than n_classes.
    """

    n_classes: Rows = 1000
    names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_names(self.names, self.n_classes)
        return self


class ClassNumber(Conditioner):
    """The number of a class, (B, 1), as a U-Net with `vector: table` reads it. There is no number for no class."""

    Config: ClassVar[type[ClassNumberConfig]] = ClassNumberConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example({"n_classes": 5, "names": ["cat", "dog"]}, (0, "dog", "3", 2)),
        Example({"n_classes": 3}, (0, 1, 2)),
    )
    Input: ClassVar[Any] = ClassInput
    kind: SignalKind = "vector"
    dim = 1
    has_null = False

    def parse(self, raw: Any, where: str) -> int:
        return class_number(super().parse(raw, where), self.config.n_classes, self.config.names, where)

    def example(self, size: tuple[int, int]) -> int:
        return 0

    def forward(self, inputs: list[int | str]) -> Vector:
        numbers = [class_number(raw, self.config.n_classes, self.config.names) for raw in inputs]
        return Vector(torch.tensor(numbers, dtype=torch.float32)[:, None])
