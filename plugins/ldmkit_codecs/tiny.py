"""Tiny autoencoders of the TAESD family: a few plain convolutions distilled from a large first stage.

Inside, pictures are in [0, 1]; outside, as everywhere, in [-1, 1]. Stages count from the full resolution in
the encoder and from the latent in the decoder, as they run.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

import torch
import torch.nn.functional as F
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor, nn

from ldmkit import Codec, Direction, Example, Reconstruction, Value, Work
from ldmkit.bounds import MAX_LEVELS, Width
from ldmkit_codecs.footprint import tiny_footprint
from ldmkit_codecs.shapes import (
    PerChannel,
    check_images,
    check_latents,
    check_per_channel,
    held_dtype,
    restore,
    standardise,
    without_upcast,
)

SATURATION = 3.0
"""The decoder squashes latents smoothly into (-3, 3)."""
SMALL = {"width": 8, "encoder_blocks": (1, 2, 1), "decoder_blocks": (1, 2, 1)}
"""A geometry for examples."""
POOL_WIDENING = 4
POOL_GROUPS = 4

Blocks = tuple[Annotated[int, Field(ge=0, le=64)], ...]


class TinyConfig(Value):
    """Geometry of a tiny autoencoder.

    Args:
        in_channels, out_channels: channels of pictures.
        width: channels of every hidden map.
        encoder_blocks: residual blocks per stage, full resolution first; factor = 2 ** (stages - 1).
        decoder_blocks: the same, latent resolution first.
        latent_channels: channels of the latent.
        encoder_pool, decoder_pool: blocks at latent resolution begin with the pooled branch.
        scale, shift: standardised latent = (raw - shift) * scale; published weights produce standardised latents.
        force_upcast: keep weights in float32 if float16 is requested.
    """

    in_channels: Width = 3
    out_channels: Width = 3
    width: Width = 64
    encoder_blocks: Blocks = Field(default=(1, 3, 3, 3), min_length=1, max_length=MAX_LEVELS)
    decoder_blocks: Blocks = Field(default=(3, 3, 3, 1), min_length=1, max_length=MAX_LEVELS)
    latent_channels: Width = 4
    encoder_pool: bool = False
    decoder_pool: bool = False
    scale: PerChannel | None = 1.0
    shift: PerChannel = 0.0
    force_upcast: bool = False

    @model_serializer(mode="wrap")
    def _known(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_upcast(serialise(self))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.encoder_blocks) != len(self.decoder_blocks):
            what = f"{len(self.encoder_blocks)} encoder stages, {len(self.decoder_blocks)} decoder stages"
            raise ValueError(what + ": picture and reconstruction would differ in size")
        check_per_channel("scale", self.scale, self.latent_channels)
        check_per_channel("shift", self.shift, self.latent_channels)
        return self


class Pool(nn.Module):
    """The pooled branch: 1x1 convolution to four times the width, group norm with 4 groups, ReLU, 1x1 back."""

    def __init__(self, width: int):
        super().__init__()
        self.expand = nn.Conv2d(width, POOL_WIDENING * width, 1, bias=False)
        self.norm = nn.GroupNorm(POOL_GROUPS, POOL_WIDENING * width)
        self.squeeze = nn.Conv2d(POOL_WIDENING * width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.squeeze(self.norm(self.expand(x)).relu_())


class Block(nn.Module):
    """relu(x + three 3x3 convolutions of x), where x is first added to its pooled branch, if there is one."""

    def __init__(self, width: int, pool: bool):
        super().__init__()
        self.pool = Pool(width) if pool else None
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        h = self.conv2(self.conv1(x).relu_()).relu_()
        return self.conv3(h).add_(x).relu_()


class Encode(nn.Module):
    """Pictures in [0, 1] -> raw latents. `entry[i]` opens stage i: from the picture, or by halving."""

    def __init__(self, c: TinyConfig):
        super().__init__()
        width, last = c.width, len(c.encoder_blocks) - 1
        halve = (nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False) for _ in range(last))
        self.entry = nn.ModuleList([nn.Conv2d(c.in_channels, width, 3, padding=1), *halve])
        self.stage = nn.ModuleList(
            _stage(width, blocks, c.encoder_pool and level == last) for level, blocks in enumerate(c.encoder_blocks)
        )
        self.conv_out = nn.Conv2d(width, c.latent_channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        for entry, stage in zip(self.entry, self.stage, strict=True):
            h = stage(entry(h))
        return self.conv_out(h)


class Decode(nn.Module):
    """Raw latents -> pictures in [0, 1], unclipped. `doubling[i]` doubles the map after stage i."""

    def __init__(self, c: TinyConfig):
        super().__init__()
        width, last = c.width, len(c.decoder_blocks) - 1
        self.conv_in = nn.Conv2d(c.latent_channels, width, 3, padding=1)
        self.stage = nn.ModuleList(
            _stage(width, blocks, c.decoder_pool and level == 0) for level, blocks in enumerate(c.decoder_blocks)
        )
        self.doubling = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(last))
        self.conv_out = nn.Conv2d(width, c.out_channels, 3, padding=1)

    def forward(self, raw: Tensor) -> Tensor:
        h = self.conv_in(torch.tanh(raw / SATURATION) * SATURATION).relu_()
        for level, stage in enumerate(self.stage):
            h = stage(h)
            if level < len(self.doubling):
                h = self.doubling[level](F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.conv_out(h)


def _stage(width: int, blocks: int, pool: bool) -> nn.Sequential:
    return nn.Sequential(*(Block(width, pool) for _ in range(blocks)))


class TinyCodec(Codec):
    """Pictures (B,3,H,W) in [-1,1] <-> latents (B, latent_channels, H/factor, W/factor). No posterior."""

    Config = TinyConfig
    config: TinyConfig
    examples = (
        Example({**SMALL, "shift": 0.5}),
        Example({**SMALL, "encoder_pool": True, "decoder_pool": True, "latent_channels": 6}),
    )

    def __init__(self, config: TinyConfig | None = None):
        super().__init__(config)
        c = self.config
        self.channels, self.factor = c.latent_channels, 2 ** (len(c.encoder_blocks) - 1)
        self.encoder = Encode(c)
        self.decoder = Decode(c)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Standardised latents; there is no posterior, so `noise` has no effect.

        Raises:
            InputError: a shape or size that does not fit.
        """
        check_images(images, self.config.in_channels, self.multiple)
        return standardise(self.encoder(images * 0.5 + 0.5), self.config.scale, self.config.shift)

    def raw(self, latents: Tensor) -> Tensor:
        """Latents in the encoder's own units, before scale and shift."""
        return restore(latents, self.config.scale, self.config.shift)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of standardised latents, about [-1, 1], not clipped.

        Raises:
            InputError: another shape.
        """
        check_latents(latents, self.channels)
        return self.decoder(restore(latents, self.config.scale, self.config.shift)) * 2.0 - 1.0

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """Encoded and decoded pictures; there is no regulariser and no loss."""
        return Reconstruction(self.decode(self.encode(images)), {}, {})

    def footprint(self, batch: int, size: tuple[int, ...], direction: Direction) -> Work:
        """See `Codec.footprint`."""
        blocks = self.config.encoder_blocks if direction == "encode" else self.config.decoder_blocks[::-1]
        return tiny_footprint(blocks, self.config.width, batch, size, self.dtype.itemsize)

    def held_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """float32 if float16 is requested and the config has `force_upcast`."""
        return held_dtype(dtype, self.config.force_upcast)

    @property
    def standardises(self) -> bool:
        """Whether the scale of its latents is known."""
        return self.config.scale is not None

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the decoder's last convolution."""
        return self.decoder.conv_out.weight
