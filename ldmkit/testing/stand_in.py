"""A codec for parts that need some codec to be checked with."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit.contracts.codec import Codec
from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.value import Value
from ldmkit.errors import CompositionError
from ldmkit.models.abilities import bind as bind_to

CHANNELS = (3, 4, 8, 16, 1, 2, 6, 12, 32)
"""Latent channels that are tried, one after the other, where a part wants a certain number."""


class PoolingConfig(Value):
    """Latent channels."""

    channels: int = 3


class PoolingCodec(Codec):
    """Colours averaged over 2 x 2 pixels, repeated to as many channels as wanted, times a weight."""

    Config: ClassVar[type[PoolingConfig]] = PoolingConfig
    config: PoolingConfig
    factor = 2

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.channels = self.config.channels
        self.gain = nn.Parameter(torch.tensor(2.0))

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        pooled = F.avg_pool2d(images, 2) * self.gain
        return pooled[:, torch.arange(self.channels, device=images.device) % 3]

    def decode(self, latents: Tensor) -> Tensor:
        colours = latents[:, torch.arange(3, device=latents.device) % self.channels]
        return F.interpolate(colours / self.gain, scale_factor=2.0)

    def raw(self, latents: Tensor) -> Tensor:
        return latents / self.gain


def bind(part: Conditioner) -> Codec:
    """Bind a conditioner to a codec of as many channels as it takes, on its device and in its dtype.

    Raises:
        CompositionError: of the part, where it takes none of `CHANNELS`.
    """
    refusals: list[CompositionError] = []
    for channels in CHANNELS:
        codec = PoolingCodec({"channels": channels}).requires_grad_(False).eval().to(part.device, part.dtype)
        try:
            bind_to(part, codec)
        except CompositionError as error:
            refusals.append(error)
        else:
            return codec
    raise refusals[0]
