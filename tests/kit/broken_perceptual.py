"""Distances that break one promise each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from broken_modules import module_faults
from good_perceptual import Edges
from torch import Tensor, nn


class OneNumber(Edges):
    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        return super().forward(images, reference).mean()


class Narrow(Edges):
    """Returns what it gets."""

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        return super().forward(images, reference).to(images.dtype)


class Offset(Edges):
    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        return super().forward(images, reference) + 1e-3


class Root(Edges):
    """The root of a square: its slope is infinite at 0."""

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        difference = self.filters(images.to(self.dtype)) - self.filters(reference.to(self.dtype))
        return difference.float().square().mean((1, 2, 3)).sqrt()


class Signed(Edges):
    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        a, b = (self.filters(x.to(self.dtype)).float() for x in (images, reference))
        return (a - b).mean((1, 2, 3))


class Blind(Edges):
    """Does not see what is turned upside down in value."""

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        return super().forward(images.abs(), reference.abs())


class Cut(Edges):
    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        return super().forward(images.detach(), reference)


class FirstOnly(Edges):
    """Lets the gradient into the first picture only."""

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        return super().forward(torch.cat([images[:1], images[1:].detach()]), reference)


class Dropping(Edges):
    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(images, reference), 0.5, self.training)


class Counting(Edges):
    """Keeps statistics of what it has seen."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.norm = nn.BatchNorm2d(3, affine=False)

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        self.norm(reference.to(self.dtype))
        return super().forward(images, reference)


class AnyFile(Edges):
    def load_files(self, files: Sequence[Path]) -> None:
        self.found = [path for path in files if path.exists()]


class WrongError(Edges):
    def load_files(self, files: Sequence[Path]) -> None:
        for path in files:
            path.read_bytes()


_SHARED = {
    name: [cls] for name, cls in module_faults(Edges, "forward").items() if name not in ("gradients", "training-rows")
}

BROKEN: dict[str, list[type[Any]]] = {
    "shape": [OneNumber, Narrow],
    "equal-pictures": [Offset, Root],
    "not-negative": [Signed, Blind],
    "gradient": [Cut, FirstOnly],
    "frozen": [Dropping, Counting],
    "files": [AnyFile, WrongError],
    **_SHARED,
}
"""Check -> parts that it must catch."""
