"""A stand-in codec for checking parts that need one."""

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
"""Numbers of latent channels to try, in order, for parts that require a particular one."""


class PoolingConfig(Value):
    """Latent channels."""

    channels: int = 3


class PoolingCodec(Codec):
    """Colours averaged over 2 x 2 pixels, repeated to the number of channels, and multiplied by a weight."""

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
    """Bind a conditioner to a codec with a number of channels that it accepts, and with its device and dtype.

    Raises:
        CompositionError: the part's error, if it accepts none of `CHANNELS`.
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
