"""Dark or light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

import ldmkit


class JudgeConfig(ldmkit.Value):
    """Args: channels of the latents; width inside."""

    channels: int = Field(default=4, ge=1)
    width: int = Field(default=8, ge=1)


class Judge(ldmkit.Classifier):
    """A convolution, a mean, a linear layer."""

    api = 1
    Config = JudgeConfig
    config: JudgeConfig
    names = ("dark", "light")
    examples = (ldmkit.Example({"channels": 3, "width": 4}),)

    def __init__(self, config: JudgeConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.channels, self.classes = self.config.channels, 2
        self.look = nn.Conv2d(self.channels, self.config.width, 3, padding=1)
        self.level = nn.Linear(1, self.config.width)
        self.say = nn.Linear(self.config.width, 2)

    def forward(self, x: Tensor, sigma: Sequence[float]) -> Tensor:
        """Logits (B,2), float32."""
        weight = self.level.weight
        level = torch.tensor(sigma, dtype=weight.dtype, device=weight.device)[:, None]
        scale = (1 + level.square()).rsqrt()
        h = self.look(x.to(weight.dtype) * scale[:, :, None, None]) + self.level(level.log())[:, :, None, None]
        return self.say(nn.functional.silu(h).mean((2, 3))).float()
