"""SDXL's size conditions (arXiv:2307.01952, section 2.2): integers as sinusoids, in one vector."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ldmkit import Example, HasDefault, Signal, SignalKind, Value, Vector
from ldmkit.bounds import Width

Name: TypeAlias = Literal["original", "crop", "target", "aesthetic"]
Pixels: TypeAlias = tuple[int, int]

LIMIT = 1 << 20


class Sizes(Value):
    """Heights and widths in pixels, (height, width) and (top, left); fields a model does not read are ignored.

    Args:
        original: of the training picture before it was resized.
        crop: where the training crop started.
        target: of the picture to draw.
        aesthetic: score, read by the refiner.
    """

    original: Pixels
    crop: Pixels = (0, 0)
    target: Pixels
    aesthetic: float = Field(default=6.0, ge=0, le=100)

    @model_validator(mode="after")
    def _in_range(self) -> Sizes:
        numbers = (*self.original, *self.crop, *self.target)
        if min(numbers) < 0 or max(numbers) > LIMIT or min(*self.original, *self.target) == 0:
            raise ValueError(f"sizes are 1 to {LIMIT} pixels, crops 0 to {LIMIT}")
        return self


class SizeCodesConfig(Value):
    """
    Args:
        reads: in this order; SDXL's refiner reads original, crop, aesthetic.
        width: of each number's code, even.
        null_aesthetic: the score in the null, where one is read: 2.5 in SDXL's own sampling scripts.
    """

    reads: tuple[Name, ...] = Field(default=("original", "crop", "target"), max_length=16)
    width: Width = Field(default=256, multiple_of=2)
    null_aesthetic: float = Field(default=2.5, ge=0, le=100)


class SizeCodes(HasDefault):
    """Sizes as one vector (B, numbers * width), each number as [cos | sin].

    The null is the signal itself with a low aesthetic score: sizes are facts of a picture, and stay where no negative
    ones are given.
    """

    Config: ClassVar[type[SizeCodesConfig]] = SizeCodesConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example({"width": 8}),
        Example({"reads": ["original", "crop", "aesthetic"], "width": 4}),
    )
    Input: ClassVar[Any] = Sizes
    kind: SignalKind = "vector"

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim = self.config.width * sum(1 if name == "aesthetic" else 2 for name in self.config.reads)

    def forward(self, inputs: list[Sizes]) -> Vector:
        rows = [[number for name in self.config.reads for number in _numbers(item, name)] for item in inputs]
        numbers = torch.tensor(rows, dtype=torch.float32)
        return Vector(sinusoids(numbers, self.config.width).flatten(1))

    def null(self, like: Signal) -> Signal:
        if "aesthetic" not in self.config.reads or not isinstance(like, Vector):
            return like
        width = self.config.width
        low = sinusoids(torch.tensor([self.config.null_aesthetic]), width).to(like.value)
        codes = like.value.split([width if name == "aesthetic" else 2 * width for name in self.config.reads], dim=1)
        named = zip(self.config.reads, codes, strict=True)
        return Vector(torch.cat([low.expand_as(c) if name == "aesthetic" else c for name, c in named], dim=1))

    def default(self, size: tuple[int, int]) -> Sizes:
        """An uncropped picture of the run's own size."""
        return Sizes(original=size, target=size)


def sinusoids(values: Tensor, width: int) -> Tensor:
    """[cos | sin] of value * 10000^(-i / half), half = width / 2: (...) -> (..., width), float32."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=values.device)
    angles = values[..., None].float() * torch.exp(-math.log(10000) * steps / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _numbers(item: Sizes, name: Name) -> tuple[float, ...]:
    return (item.aesthetic,) if name == "aesthetic" else getattr(item, name)
