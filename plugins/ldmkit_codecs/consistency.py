"""A KL encoder with a consistency decoder: a U-Net that draws pictures from noise and latents in two steps.

After OpenAI's decoder for Stable Diffusion's latents (2023), diffusers' `ConsistencyDecoderVAE`; consistency
models are of Song et al. 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from ldmkit_denoisers.config import UNetConfig
from ldmkit_denoisers.footprint import footprint
from ldmkit_denoisers.unet import UNet
from pydantic import Field, model_validator
from torch import Tensor

from ldmkit import CompositionError, Context, Direction, Example, Plane, Reconstruction, Work
from ldmkit_codecs.autoencoder import SMALL
from ldmkit_codecs.footprint import autoencoder_footprint
from ldmkit_codecs.kl import KLConfig, KLEncoder
from ldmkit_codecs.noise_table import noise_table
from ldmkit_codecs.shapes import PerChannel, check_latents, check_per_channel, standardise

LATENT_MEAN = (0.38862467, 0.02253063, 0.07381133, -0.0171294)
LATENT_DEVIATION = (0.9654121, 1.0440036, 0.76147926, 0.77022034)
"""Statistics of Stable Diffusion 1's latents, in the published decoder's code."""

PUBLISHED = UNetConfig(
    channels=3,
    in_channels=7,
    out_channels=6,
    widths=(320, 640, 1024, 1024),
    blocks=3,
    mid="none",
    heads=1,
    scale_shift=True,
    residual_resample=True,
    time_table=1024,
)
"""The published decoder's network: 621 million parameters."""

FIXED_SEED = 0
"""Seed of the noise with which `decode`, which must not draw, decodes every picture."""


class ConsistencyConfig(KLConfig):
    """The encoder's geometry, as for `kl`, and the decoder.

    Args:
        unet: the decoder's network. Its `channels` are the picture's, its further input channels the latent's; of
            its output, the first `channels` are used (the others, a learned variance, only in training by diffusion).
        latent_mean, latent_deviation: the network reads (latents - mean) / deviation, repeated to the picture's size.
        timesteps: noise levels of the steps, decreasing; as many steps as numbers. Published: 1008 and 512.
        steps: timesteps of the noise schedule.
        sigma_data: deviation of pictures in the network's scalings.
        clamp: clamp the estimate of every step to [-1, 1]. OpenAI's decoder does, diffusers' class does not.
        tanh_out, post_quant_conv: belong to the decoder of `kl`, which is not here.
    """

    tanh_out: Literal[False] = False
    post_quant_conv: Literal[False] = False
    unet: UNetConfig = PUBLISHED
    latent_mean: PerChannel = LATENT_MEAN
    latent_deviation: PerChannel = LATENT_DEVIATION
    timesteps: tuple[int, ...] = Field(default=(1008, 512), min_length=1, max_length=64)
    steps: int = Field(default=1024, ge=2, le=65536)
    sigma_data: float = Field(default=0.5, gt=0)
    clamp: bool = False

    @model_validator(mode="after")
    def _dims(self) -> Self:
        if self.latent_channels != self.z_channels and not self.quant_conv:
            what = f"embed_dim {self.embed_dim} differs from z_channels {self.z_channels}"
            raise ValueError(what + ": this requires quant_conv")
        return self

    @model_validator(mode="after")
    def _decoder(self) -> Self:
        unet, latent = self.unet, self.latent_channels
        if unet.channels != self.out_channels or unet.plane_channels != latent:
            has, wants = (unet.channels, unet.plane_channels), (self.out_channels, latent)
            raise ValueError(f"unet: {has} channels of pictures and latents, where {wants} are decoded")
        if (unet.out_channels or unet.channels) not in (unet.channels, 2 * unet.channels):
            raise ValueError(f"unet: out_channels {unet.out_channels}; {unet.channels} or twice as many fit")
        if unet.vector != "none" or unet.context_dim is not None:
            raise ValueError("unet: a decoder takes no other conditions: no context_dim, no vector")
        if not all(a > b for a, b in pairwise((self.steps, *self.timesteps, -1))):
            raise ValueError(f"timesteps {list(self.timesteps)}: decreasing, from below {self.steps} to 0, are needed")
        if unet.time_table is not None and unet.time_table <= self.timesteps[0]:
            raise ValueError(f"unet: time_table {unet.time_table} has no row for timestep {self.timesteps[0]}")
        check_per_channel("latent_mean", self.latent_mean, latent)
        check_per_channel("scale", self.latent_deviation, latent)
        return self


_UNET = {"channels": 3, "in_channels": 7, "widths": (8, 16), "blocks": 1, "norm_groups": 4, "heads": 1, "mid": "none"}


class ConsistencyCodec(KLEncoder):
    """Pictures (B,3,H,W) in [-1,1] -> latents as `kl`; latents -> pictures by drawing.

    `decode_with` is given the noise, `decode` takes the same noise for every picture."""

    Config = ConsistencyConfig
    config: ConsistencyConfig
    decoder: UNet
    examples = (
        Example(
            {**SMALL, "unet": {**_UNET, "out_channels": 6, "scale_shift": True, "residual_resample": True}},
            trained=False,  # by a stage of its own
        ),
        Example(
            {**SMALL, "scale": 0.2, "unet": {**_UNET, "time_table": 8}, "timesteps": (6, 4, 1), "steps": 8},
            trained=False,
        ),
    )

    def __init__(self, config: ConsistencyConfig | None = None):
        super().__init__(config)
        c = self.config
        self.build(c, lambda: UNet(c.unet))

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B,3,h*factor,w*factor), not clipped, decoded with the same noise for all pictures of a size.

        Raises:
            InputError: another shape.
        """
        return self.decode_with(latents, lambda index: _fixed(index, self._shape(latents), latents))

    def decode_with(self, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        """Pictures of standardised latents (B,channels,h,w), drawn with `noise(i)` in step i.

        Raises:
            InputError: another shape.
        """
        check_latents(latents, self.channels)
        c, condition = self.config, self.condition(latents)
        table, made = noise_table(c.steps, c.sigma_data), None
        for index, timestep in enumerate(c.timesteps):
            t = torch.full((len(latents),), timestep)
            drawn = noise(index)
            drawn = drawn.to(torch.promote_types(drawn.dtype, torch.float32))
            x = table.rows("noise", t, drawn) * drawn
            if made is not None:
                x = table.rows("signal", t, drawn) * made + x
            made = self.estimate(x, t, condition)
            made = made.clamp(-1, 1) if c.clamp else made
        assert made is not None, "a config has timesteps"
        return made.to(latents.dtype)

    def condition(self, latents: Tensor) -> Context:
        """What the decoder's network takes for standardised latents, for any number of calls of `estimate`."""
        c = self.config
        features = standardise(latents, _inverse(c.latent_deviation), c.latent_mean)
        features = F.interpolate(features, scale_factor=float(self.factor), mode="nearest")
        return self.decoder.prepare({"plane": Plane(features)})

    def estimate(self, x: Tensor, t: Tensor, condition: Context) -> Tensor:
        """The picture (B,3,H,W) in x, which is one with the noise of timesteps t (B,), integers."""
        c = self.config
        table = noise_table(c.steps, c.sigma_data)
        made = self.decoder(table.rows("into", t, x) * x, t.to(x.device, torch.float32), condition)
        made = made[:, : c.unet.channels].to(x.dtype)
        return table.rows("out", t, x) * made + table.rows("skip", t, x) * x

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """
        Raises:
            CompositionError: `not-trainable`: pictures are not compared with reconstructions, see `stage: consistency`.
        """
        what = "a consistency decoder is not trained on reconstructions"
        raise CompositionError("not-trainable", what, where="model.type", fits="stage: consistency")

    def footprint(self, batch: int, size: tuple[int, ...], direction: Direction) -> Work:
        """See `Codec.footprint`."""
        if direction == "encode":
            return autoencoder_footprint(self.config, batch, size, direction, self.dtype.itemsize)
        once = footprint(self.config.unet, batch, (size[0], size[1]), self.dtype.itemsize)
        return once._replace(flops=once.flops * len(self.config.timesteps))

    def _shape(self, latents: Tensor) -> tuple[int, ...]:
        check_latents(latents, self.channels)
        return (self.config.unet.channels, *(side * self.factor for side in latents.shape[2:]))


def _fixed(index: int, shape: Sequence[int], like: Tensor) -> Tensor:
    """The same unit normal noise for each row of `like`: (B, *shape)."""
    generator = torch.Generator().manual_seed(FIXED_SEED + index)
    one = torch.randn(*shape, generator=generator, device="cpu").to(like)
    return one.expand(len(like), *shape)


def _inverse(values: Any) -> PerChannel:
    return tuple(1 / v for v in values) if isinstance(values, tuple) else 1 / values
