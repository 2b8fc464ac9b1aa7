"""Layouts as a set of box tokens: label embedding and Fourier features of the box, for new models."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ldmkit import Example, Signal, SignalKind, Tokens, Value
from ldmkit.bounds import MAX_WIDTH, Length, Rows, Width
from ldmkit_conditioners.boxed import Boxed
from ldmkit_conditioners.label import class_number
from ldmkit_conditioners.layout import EXAMPLE, Box, Layout


class LayoutBoxesConfig(Value):
    """
    Args:
        frequencies: octaves of each coordinate: sin and cos of pi * 2^k * value.
        hidden: width of the MLP; 0: as dim.
        flags: also embed the four attributes of a box.
        max_objects: maximum number of boxes; more are refused.
    """

    n_classes: Rows = 80
    dim: Width = 512
    frequencies: int = Field(default=8, gt=0, le=16)
    hidden: int = Field(default=0, ge=0, le=MAX_WIDTH)
    flags: bool = False
    max_objects: Length = 100
    names: tuple[str, ...] = ()


class LayoutBoxes(Boxed):
    """A layout as tokens (B, L, dim) with a mask, L the largest number of objects in the batch; order does not matter.

    As in GLIGEN (arXiv:2301.07093, equation 5): MLP([label embedding, Fourier(x0, y0, x1, y1)]). An empty layout is one
    learned token, which is also the null.
    """

    Config: ClassVar[type[LayoutBoxesConfig]] = LayoutBoxesConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {"n_classes": 9, "dim": 16, "flags": True},
            ([EXAMPLE, {**EXAMPLE, "occluded": True}], [], [EXAMPLE, {**EXAMPLE, "label": 2}, EXAMPLE]),
        ),
        Example({"n_classes": 3, "dim": 8, "names": ["cat", "dog", "cow"], "hidden": 12}, ([EXAMPLE], [])),
    )
    kind: SignalKind = "tokens"

    def __init__(self, config: Any = None):
        super().__init__(config)
        c = self.config
        self.dim = c.dim
        hidden = c.hidden or c.dim
        self.labels = nn.Embedding(c.n_classes, c.dim)
        self.mlp = nn.Sequential(
            nn.Linear(c.dim + 8 * c.frequencies + 4 * c.flags, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, c.dim),
        )
        self.empty = nn.Parameter(nn.init.normal_(torch.empty(c.dim), std=0.02))
        self._initialise()

    def _initialise(self) -> None:
        # With torch's default initialisation tokens differ by hundredths, and attention finds boxes late or never.
        # Here class and place have equal weight, and the MLP preserves their scale (He et al. 2015).
        nn.init.normal_(self.labels.weight, std=math.sqrt(4 * self.config.frequencies / self.config.dim))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, inputs: list[Layout]) -> Tokens:
        for layout in inputs:
            self.check(layout)
        counts = [len(layout.objects) for layout in inputs]
        length = max(1, *counts)
        boxes = tuple(box for layout in inputs for box in layout.objects)
        made = self._tokens(boxes).split(counts) if boxes else [self.empty[:0]] * len(counts)
        rows = [
            nn.functional.pad(row if len(row) else self.empty[None], (0, 0, 0, length - max(1, len(row))))
            for row in made
        ]
        filled = torch.tensor(counts, device=self.empty.device).clamp(min=1)
        return Tokens(torch.stack(rows), torch.arange(length, device=self.empty.device) < filled[:, None])

    def null(self, like: Signal) -> Tokens:
        assert isinstance(like, Tokens)
        rows, length = like.value.shape[:2]
        value = nn.functional.pad(self.empty[None, None], (0, 0, 0, length - 1)).expand(rows, -1, -1)
        return Tokens(value, (torch.arange(length, device=value.device) == 0).expand(rows, -1))

    def _tokens(self, boxes: tuple[Box, ...]) -> Tensor:
        config, device, dtype = self.config, self.empty.device, self.empty.dtype
        numbers = [class_number(box.label, config.n_classes, config.names) for box in boxes]
        parts = [self.labels(torch.tensor(numbers, device=device))]
        corners = torch.tensor([box.rect.corners for box in boxes], dtype=torch.float32).clamp(0, 1)
        parts.append(fourier(corners, config.frequencies).to(device, dtype))
        if config.flags:
            flags = [[box.group_of, box.occluded, box.depiction, box.inside] for box in boxes]
            parts.append(torch.tensor(flags, device=device, dtype=dtype))
        return self.mlp(torch.cat(parts, dim=1))


def fourier(values: Tensor, frequencies: int) -> Tensor:
    """sin and cos of pi * 2^k * value, k < frequencies: (N, 4) in [0, 1] -> (N, 8 * frequencies)."""
    angles = values[..., None] * (math.pi * 2.0 ** torch.arange(frequencies, device=values.device, dtype=values.dtype))
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
