"""A classifier of one's own, written against `ldmkit` alone: a convolution, and the mean over all places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldmkit import Classifier, Example, Value


class FewConfig(Value):
    """Args:
    channels: of the latents.
    names: of the classes.
    """

    channels: int = 3
    names: tuple[str, ...] = ("cat", "dog", "tree")


class Few(Classifier):
    """Latents are brought to unit variance by their noise level, which is read as well."""

    Config = FewConfig
    config: FewConfig
    examples = (Example(), Example({"channels": 4, "names": ("yes", "no")}))

    def __init__(self, config: FewConfig | None = None):
        super().__init__(config)
        self.channels, self.names = self.config.channels, self.config.names
        self.classes = len(self.names)
        self.conv = nn.Conv2d(self.channels, 8, 3, padding=1)
        self.level = nn.Linear(1, 8)
        self.head = nn.Linear(8, self.classes)

    def forward(self, x: Tensor, sigma: Sequence[float]) -> Tensor:
        levels = torch.tensor(list(sigma), device=x.device)
        x = x * (1 + levels.square()).rsqrt()[:, None, None, None].to(x.dtype)
        h = self.conv(x) + self.level(levels.log()[:, None].to(x.dtype))[:, :, None, None]
        return self.head(h.tanh().mean((2, 3))).float()
