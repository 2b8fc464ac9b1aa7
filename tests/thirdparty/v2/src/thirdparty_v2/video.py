"""Parts over videos, written against `ldmkit` alone: a codec that is causal in time, and a small 3-D network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

import ldmkit


class CausalConfig(ldmkit.Value):
    """Args: channels of the latents; scale that brings them to about unit variance."""

    channels: int = Field(default=4, ge=1)
    scale: float = Field(default=1.0, gt=0)


class Causal(ldmkit.Codec):
    """Videos (B,3,1+2n,H,W) in [-1,1] <-> latents (B,channels,1+n,H/4,W/2). The first frame is encoded by itself."""

    Config = CausalConfig
    config: CausalConfig
    api = 1
    examples = (ldmkit.Example({"channels": 3, "scale": 2.0}),)
    axes = (ldmkit.Axis("frames", 2, causal=True), ldmkit.Axis("height", 4), ldmkit.Axis("width", 2))

    def __init__(self, config: CausalConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.channels = self.config.channels
        self.first = nn.Conv2d(3, self.channels, (4, 2), stride=(4, 2))
        self.rest = nn.Conv3d(3, self.channels, (2, 4, 2), stride=(2, 4, 2))
        self.first_back = nn.ConvTranspose2d(self.channels, 3, (4, 2), stride=(4, 2))
        self.rest_back = nn.ConvTranspose3d(self.channels, 3, (2, 4, 2), stride=(2, 4, 2))

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents; there is no posterior, so `noise` changes nothing."""
        sides = images.shape[2:]
        if images.ndim != 5 or images.shape[1] != 3 or sides[0] % 2 == 0 or sides[1] % 4 or sides[2] % 2:
            fits = "(B, 3, 1 + 2n, 4h, 2w)"
            raise ldmkit.InputError("video-shape", f"got {tuple(images.shape)}", fits=fits)
        made = [self.first(images[:, :, 0]).unsqueeze(2)]
        if sides[0] > 1:
            made.append(self.rest(images[:, :, 1:]))
        return torch.cat(made, 2) * self.config.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Videos."""
        if latents.ndim != 5:
            raise ldmkit.InputError("latent-shape", f"latents are (B,C,t,h,w), got {tuple(latents.shape)}")
        raw = self.raw(latents)
        made = [self.first_back(raw[:, :, 0]).unsqueeze(2)]
        if raw.shape[2] > 1:
            made.append(self.rest_back(raw[:, :, 1:]))
        return torch.cat(made, 2)

    def raw(self, latents: Tensor) -> Tensor:
        """Without the scale."""
        return latents / self.config.scale

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> ldmkit.Reconstruction:
        """With a loss that keeps latents small."""
        latents = self.encode(images, noise)
        return ldmkit.Reconstruction(self.decode(latents), {"size": latents.square().mean()}, {})

    @property
    def last_layer(self) -> nn.Parameter:
        return self.rest_back.weight


class CubeConfig(ldmkit.Value):
    """Args: channels of the latents; width inside; dim of the vector `mood`."""

    channels: int = Field(default=4, ge=1)
    width: int = Field(default=8, ge=2, multiple_of=2)
    mood: int = Field(default=3, ge=1)


class Cube(ldmkit.Denoiser):
    """Two 3-D convolutions over (B,channels,t,h,w), conditioned on one vector."""

    Config = CubeConfig
    config: CubeConfig
    api = 1
    examples = (ldmkit.Example({"channels": 3, "width": 4}),)
    latent_axes = 3

    def __init__(self, config: CubeConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        c = self.config
        self.channels = c.channels
        self.slots = {"mood": ldmkit.Slot("vector", c.mood)}
        self.port = ldmkit.Port()
        self.ports = {"mid": self.port}
        self.enter, self.leave = (
            nn.Conv3d(c.channels, c.width, 3, padding=1),
            nn.Conv3d(c.width, c.channels, 3, padding=1),
        )
        self.time, self.mood = nn.Linear(c.width, c.width), nn.Linear(c.mood, c.width)

    def prepare(self, signals: Mapping[str, ldmkit.Signal]) -> ldmkit.Context:
        """The signals as they are: a vector is projected in no time."""
        return ldmkit.Context(signals)

    def forward(self, x: Tensor, t: Tensor, context: ldmkit.Context, sigma: float | None = None) -> Tensor:
        """F of (B,channels,t,h,w)."""
        rates = torch.exp(-torch.arange(self.config.width // 2, device=t.device))
        angles = t.float()[:, None] * rates
        row = self.time(torch.cat([angles.sin(), angles.cos()], 1).to(x.dtype))
        mood = context.signals.get("mood")
        if isinstance(mood, ldmkit.Vector):
            row = row + self.mood(mood.value)
        h = self.enter(x) + row[:, :, None, None, None]
        h = self.port(torch.nn.functional.silu(h), ldmkit.Frame(x, t, context, sigma))
        out: Tensor = self.leave(torch.nn.functional.silu(h))
        return out
