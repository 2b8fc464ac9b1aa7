"""A distance of one's own, written against `ldmkit` alone: differences of a few filters' answers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import Example, Perceptual, Value


class EdgesConfig(Value):
    """Args:
    filters: how many.
    """

    filters: int = 6


class Edges(Perceptual):
    """Mean absolute difference of filtered pictures."""

    Config = EdgesConfig
    config: EdgesConfig
    examples = (Example(), Example({"filters": 2}))

    def __init__(self, config: EdgesConfig | None = None):
        super().__init__(config)
        self.filters = nn.Conv2d(3, self.config.filters, 3, padding=1)

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        a, b = (F.relu(self.filters(x.to(self.dtype))).float() for x in (images, reference))
        return (a - b).abs().mean((1, 2, 3))


class Nothing(Perceptual):
    """0 for all pictures."""

    examples = (Example(trained=False),)

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        return torch.zeros(images.shape[0], device=images.device)
