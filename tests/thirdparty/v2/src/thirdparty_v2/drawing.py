"""A codec whose decoder draws noise, written against `ldmkit` alone: a tiny consistency decoder of two steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

import ldmkit


class TwoStepConfig(ldmkit.Value):
    """Args: channels of the latents; levels, the noise added before each step of the decoder, falling."""

    channels: int = Field(default=4, ge=1)
    levels: tuple[float, float] = (1.0, 0.5)


class TwoStep(ldmkit.Codec):
    """(B,3,H,W) <-> (B,channels,H/2,W/2). Each step of the decoder adds noise to its picture and makes a new one."""

    api = 1
    Config = TwoStepConfig
    config: TwoStepConfig
    factor = 2
    examples = (ldmkit.Example({"channels": 3}, trained=False),)

    def __init__(self, config: TwoStepConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.channels = self.config.channels
        self.there = nn.Conv2d(3, self.channels, 2, stride=2)
        self.features = nn.ConvTranspose2d(self.channels, 3, 2, stride=2)
        self.step = nn.Conv2d(6, 3, 3, padding=1)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents; there is no posterior, so `noise` changes nothing."""
        if images.ndim != 4 or images.shape[2] % 2 or images.shape[3] % 2:
            raise ldmkit.InputError("odd-size", f"got {tuple(images.shape)}", fits="(B, 3, H, W), H and W even")
        return self.there(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures, with noise of zeros."""
        return self.decode_with(latents, lambda _: latents.new_zeros(()))

    def decode_with(self, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        """Pictures, with noise 0 and 1."""
        if latents.ndim != 4:
            raise ldmkit.InputError("latent-shape", f"latents are (B,C,h,w), got {tuple(latents.shape)}")
        features = self.features(latents)
        images = torch.zeros_like(features)
        for index, level in enumerate(self.config.levels):
            images = self.step(torch.cat([images + level * noise(index), features], 1))
        return images
