"""Conditioners as a third party would write them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ldmkit import Conditioner, Example, Ported, PortedLinear, Tokens, Value, Vector, linear_ports
from ldmkit.contracts.signals import Signal, SignalKind

Colour = Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]


class Colours(Value):
    """A palette: one to five colours as #rrggbb."""

    colours: tuple[Colour, ...] = Field(min_length=1, max_length=5)


class PaletteConfig(Value):
    """Width of the tokens."""

    dim: int = Field(default=8, gt=0, le=4096)


class Palette(Conditioner):
    """A palette as tokens (B, L, dim) with a mask, one a colour; the null is one learned token."""

    Config: ClassVar[type[PaletteConfig]] = PaletteConfig
    Input: ClassVar[Any] = Colours
    examples: ClassVar[tuple[Example, ...]] = (
        Example({"dim": 6}, [{"colours": ["#ff0000"]}, {"colours": ["#00ff00", "#0000ff"]}, {"colours": ["#123456"]}]),
    )
    kind: SignalKind = "tokens"

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim = self.config.dim
        self.project = nn.Linear(3, self.dim)
        self.nothing = nn.Parameter(torch.randn(self.dim))

    def forward(self, inputs: list[Any]) -> Signal:
        length = max(len(item.colours) for item in inputs)
        rows = [[_levels(colour) for colour in item.colours] for item in inputs]
        filled = [row + [(0.0, 0.0, 0.0)] * (length - len(row)) for row in rows]
        weight = self.project.weight
        value = self.project(torch.tensor(filled, dtype=weight.dtype, device=weight.device))
        lengths = torch.tensor([len(row) for row in rows], device=weight.device)
        return Tokens(value, torch.arange(length, device=weight.device) < lengths[:, None])

    def null(self, like: Signal) -> Signal:
        assert isinstance(like, Tokens)
        rows, length = like.value.shape[:2]
        value = nn.functional.pad(self.nothing[None, None], (0, 0, 0, length - 1)).expand(rows, -1, -1)
        return Tokens(value, (torch.arange(length, device=value.device) == 0).expand(rows, -1))

    def example(self, size: tuple[int, int]) -> Any:
        return Colours(colours=("#000000",))


def _levels(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


class Plain(Conditioner):
    """Two numbers as a vector (B, 2): no weights, no example, no null of its own; inputs are made from the schema."""

    Input: ClassVar[Any] = tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]
    kind: SignalKind = "vector"
    dim = 2

    def forward(self, inputs: list[Any]) -> Signal:
        return Vector(torch.tensor(inputs, dtype=torch.float32))


class Spoken(Ported):
    """Text as a vector (B, 4) of its length and its first letter, by a linear layer with a port."""

    Input: ClassVar[Any] = Annotated[str, Field(min_length=1, max_length=9)]
    examples: ClassVar[tuple[Example, ...]] = (Example(inputs=("a", "bcd", "efghi")),)
    kind: SignalKind = "vector"
    dim = 4

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.layer = PortedLinear(2, self.dim)
        self.ports = linear_ports(self)

    def numbers(self, inputs: list[str]) -> Tensor:
        """Length and first letter, (B, 2)."""
        rows = [[len(text) / 9, ord(text[0]) / 128] for text in inputs]
        return torch.tensor(rows).to(self.layer.weight)

    def forward(self, inputs: list[str]) -> Signal:
        return Vector(self.layer(self.numbers(inputs), self.frame))

    def example(self, size: tuple[int, int]) -> str:
        return "a"
