"""The KL-regularised first stage: a variational autoencoder with a slight penalty towards a unit normal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from ldmkit import Codec, Direction, Example, Reconstruction, Work
from ldmkit_codecs.autoencoder import SMALL, AutoencoderConfig, Decoder, Encoder
from ldmkit_codecs.footprint import autoencoder_footprint
from ldmkit_codecs.shapes import check_images, check_latents, check_noise, held_dtype, restore, standardise

LOGVAR_RANGE = (-30.0, 20.0)


class Posterior(NamedTuple):
    """A diagonal Gaussian over raw latents: mean and log-variance, (B, channels, h, w) each."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """KL divergence to the unit normal, summed over channels and positions: (B,), in nats; float32 or wider."""
        wide = torch.promote_types(self.mean.dtype, torch.float32)
        mean, logvar = self.mean.to(wide), self.logvar.to(wide)
        terms = mean.square() + logvar.exp() - 1.0 - logvar
        return 0.5 * terms.sum(dim=(1, 2, 3))


class KLConfig(AutoencoderConfig):
    """Geometry, and the 1x1 convolutions around the latent.

    Args:
        quant_conv: whether a convolution 2 z_channels -> 2 embed_dim follows the encoder.
        post_quant_conv: whether a convolution embed_dim -> z_channels precedes the decoder.
    """

    quant_conv: bool = True
    post_quant_conv: bool = True

    @model_validator(mode="after")
    def _dims(self) -> Self:
        if self.latent_channels != self.z_channels and not (self.quant_conv and self.post_quant_conv):
            what = f"embed_dim {self.embed_dim} differs from z_channels {self.z_channels}"
            raise ValueError(what + ": this requires quant_conv and post_quant_conv")
        return self


class KLEncoder(Codec):
    """Pictures (B,3,H,W) in [-1,1] -> latents (B, embed_dim, H/factor, W/factor): the half that codecs with other
    decoders share."""

    Config = KLConfig
    config: KLConfig
    decoder: Any

    def build(self, config: KLConfig, decoder: Callable[[], nn.Module]) -> None:
        """Make the modules: encoder, decoder, quant_conv."""
        self.channels, self.factor = config.latent_channels, config.factor
        self.encoder = Encoder(config, 2 * config.z_channels)
        self.decoder = decoder()
        self.quant_conv = nn.Conv2d(2 * config.z_channels, 2 * self.channels, 1) if config.quant_conv else None

    def moments(self, images: Tensor) -> Tensor:
        """Mean and unclamped log-variance of the posterior, stacked: (B, 2 channels, h, w).

        Raises:
            InputError: a shape or size that does not fit.
        """
        check_images(images, self.config.in_channels, self.multiple)
        h = self.encoder(images)
        return h if self.quant_conv is None else self.quant_conv(h)

    def posterior(self, images: Tensor) -> Posterior:
        """The posterior over raw latents (before scale and shift); log-variance clamped to [-30, 20].

        Raises:
            InputError: a shape or size that does not fit.
        """
        mean, logvar = self.moments(images).chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(*LOGVAR_RANGE))

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Standardised latents: the posterior's mode, or its sample at unit normal `noise` of latent shape.

        Raises:
            InputError: a shape or size that does not fit.
        """
        return standardise(_draw(self.posterior(images), noise), self.config.scale, self.config.shift)

    def raw(self, latents: Tensor) -> Tensor:
        """Latents in the encoder's own units, before scale and shift."""
        return restore(latents, self.config.scale, self.config.shift)

    def held_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """float32 if float16 is requested and the config has `force_upcast`."""
        return held_dtype(dtype, self.config.force_upcast)

    @property
    def standardises(self) -> bool:
        """Whether the scale of its latents is known."""
        return self.config.scale is not None


class KLCodec(KLEncoder):
    """Pictures (B,3,H,W) in [-1,1] <-> latents (B, embed_dim, H/factor, W/factor)."""

    examples = (
        Example({**SMALL, "scale": 0.2, "shift": 0.3}),
        Example({**SMALL, "scale": (0.5, 2.0, 1.5, -1.0), "quant_conv": False, "post_quant_conv": False}),
        Example({**SMALL, "mid_attention": "linear", "attention_levels": (1,), "level_attention": "linear"}),
        Example({**SMALL, "resample_conv": False, "embed_dim": 2, "tanh_out": True}),
    )

    def __init__(self, config: KLConfig | None = None):
        super().__init__(config)
        c = self.config
        self.build(c, lambda: Decoder(c))
        self.post_quant_conv = nn.Conv2d(self.channels, c.z_channels, 1) if c.post_quant_conv else None

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, h * factor, w * factor) of standardised latents (B, channels, h, w).

        Raises:
            InputError: another shape.
        """
        check_latents(latents, self.channels)
        return self._decode_raw(restore(latents, self.config.scale, self.config.shift))

    def _decode_raw(self, z: Tensor) -> Tensor:
        return self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z))  # type: ignore[no-any-return]

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """Decoded posterior sample (mode without noise). Loss `kl`: summed over c, h, w, mean over the batch."""
        posterior = self.posterior(images)
        return Reconstruction(self._decode_raw(_draw(posterior, noise)), {"kl": posterior.kl().mean()}, {})

    def footprint(self, batch: int, size: tuple[int, ...], direction: Direction) -> Work:
        """See `Codec.footprint`."""
        return autoencoder_footprint(self.config, batch, size, direction, self.dtype.itemsize)

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the decoder's last convolution."""
        return self.decoder.conv_out.weight  # type: ignore[no-any-return]


def _draw(posterior: Posterior, noise: Tensor | None) -> Tensor:
    if noise is None:
        return posterior.mean
    check_noise(noise, posterior.mean.shape)
    return posterior.sample(noise)
