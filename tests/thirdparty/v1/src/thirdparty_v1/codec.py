"""Pictures folded two by two: one convolution there, one back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from torch import Tensor, nn

import ldmkit


class FoldConfig(ldmkit.Value):
    """Args: channels of the latents; scale that brings them to about unit variance."""

    channels: int = Field(default=4, ge=1)
    scale: float = Field(default=1.0, gt=0)


class Fold(ldmkit.Codec):
    """(B,3,H,W) <-> (B,channels,H/2,W/2)."""

    api = 1
    Config = FoldConfig
    config: FoldConfig
    factor = 2
    examples = (ldmkit.Example({"channels": 3, "scale": 2.0}),)

    def __init__(self, config: FoldConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.channels = self.config.channels
        self.there = nn.Conv2d(3, self.channels, 2, stride=2)
        self.back = nn.ConvTranspose2d(self.channels, 3, 2, stride=2)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents; there is no posterior, so `noise` changes nothing."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ldmkit.InputError("picture-shape", f"pictures are (B,3,H,W), got {tuple(images.shape)}")
        if images.shape[2] % 2 or images.shape[3] % 2:
            raise ldmkit.InputError("odd-size", f"got {tuple(images.shape[2:])}", fits="even height and width")
        return self.there(images) * self.config.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures."""
        if latents.ndim != 4:
            raise ldmkit.InputError("latent-shape", f"latents are (B,C,h,w), got {tuple(latents.shape)}")
        return self.back(self.raw(latents))

    def raw(self, latents: Tensor) -> Tensor:
        """Without the scale."""
        return latents / self.config.scale

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> ldmkit.Reconstruction:
        """With a loss that keeps latents small."""
        latents = self.encode(images, noise)
        size = latents.square().mean()
        return ldmkit.Reconstruction(self.decode(latents), {"size": size}, {"largest": latents.detach().abs().max()})

    @property
    def last_layer(self) -> nn.Parameter:
        return self.back.weight
