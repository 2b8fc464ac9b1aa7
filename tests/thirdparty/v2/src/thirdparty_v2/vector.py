"""Parts over vectors, written against `ldmkit` alone: what a prior over embeddings is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

import ldmkit


class EmbeddingConfig(ldmkit.Value):
    """Args:
    mean, std: of the embeddings, one a feature; the latents are (embedding - mean) / std.
    """

    mean: tuple[float, ...] = (0.5, -1.0, 0.0, 2.0, 0.1, 0.2)
    std: tuple[float, ...] = (0.5, 2.0, 1.0, 4.0, 0.25, 1.5)


class Embedding(ldmkit.Codec):
    """Embeddings (B,D) <-> latents (B,D) of zero mean and unit variance. There is nothing to learn."""

    Config = EmbeddingConfig
    config: EmbeddingConfig
    api = 1
    examples = (ldmkit.Example(trained=False, error=1e-6),)
    axes = ()

    def __init__(self, config: EmbeddingConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.channels = self.data_channels = len(self.config.mean)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Standardised embeddings."""
        mean, std = self._statistics(images)
        return (images - mean) / std

    def decode(self, latents: Tensor) -> Tensor:
        """Embeddings in their own units."""
        return self.raw(latents)

    def raw(self, latents: Tensor) -> Tensor:
        """The same: embeddings are their own latents."""
        mean, std = self._statistics(latents)
        return latents * std + mean

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if like.ndim != 2 or like.shape[1] != self.channels or not like.is_floating_point():
            fits = f"(batch, {self.channels})"
            raise ldmkit.InputError("embedding-shape", f"got {tuple(like.shape)} {like.dtype}", fits=fits)
        return like.new_tensor(self.config.mean), like.new_tensor(self.config.std)


class PriorConfig(ldmkit.Value):
    """Args: channels of the latents; width inside; dim of the vector `mood`."""

    channels: int = Field(default=6, ge=1)
    width: int = Field(default=16, ge=2, multiple_of=2)
    mood: int = Field(default=3, ge=1)


class Prior(ldmkit.Denoiser):
    """A small network over (B,channels), conditioned on one vector."""

    Config = PriorConfig
    config: PriorConfig
    api = 1
    examples = (ldmkit.Example({"width": 8}),)
    latent_axes = 0

    def __init__(self, config: PriorConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        c = self.config
        self.channels = c.channels
        self.slots = {"mood": ldmkit.Slot("vector", c.mood)}
        self.port = ldmkit.Port()
        self.ports = {"mid": self.port}
        self.enter, self.time = nn.Linear(c.channels, c.width), nn.Linear(c.width, c.width)
        self.mood, self.inner = nn.Linear(c.mood, c.width), nn.Linear(c.width, c.width)
        self.leave = nn.Linear(c.width, c.channels)

    def prepare(self, signals: Mapping[str, ldmkit.Signal]) -> ldmkit.Context:
        """The signals as they are: a vector is projected in no time."""
        return ldmkit.Context(signals)

    def forward(self, x: Tensor, t: Tensor, context: ldmkit.Context, sigma: float | None = None) -> Tensor:
        """F of (B,channels)."""
        rates = torch.exp(-torch.arange(self.config.width // 2, device=t.device))
        angles = t.float()[:, None] * rates
        h = self.enter(x) + self.time(torch.cat([angles.sin(), angles.cos()], 1).to(x.dtype))
        mood = context.signals.get("mood")
        if isinstance(mood, ldmkit.Vector):
            h = h + self.mood(mood.value)
        h = h + self.inner(torch.nn.functional.silu(h))
        frame = ldmkit.Frame(x, t, context, sigma)
        out: Tensor = self.leave(torch.nn.functional.silu(self.port(h, frame)))
        return out
