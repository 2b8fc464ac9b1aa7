"""A codec of one's own, written against `ldmkit` alone: one linear map of patches of 2x2 pixels each way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ldmkit import Codec, Example, InputError, Reconstruction, Value


class PatchConfig(Value):
    """Args:
    channels: of the latents.
    scale: standardised latents are raw ones times this.
    """

    channels: int = 4
    scale: float = 0.5


class PatchCodec(Codec):
    """Pictures (B,3,H,W) in [-1,1] <-> latents (B,channels,H/2,W/2), with a posterior."""

    Config = PatchConfig
    config: PatchConfig
    examples = (Example(), Example({"channels": 3, "scale": 1.0}))
    factor = 2

    def __init__(self, config: PatchConfig | None = None):
        super().__init__(config)
        self.channels = self.config.channels
        self.encoder = nn.Conv2d(3, 2 * self.channels, 2, 2)
        self.decoder = nn.ConvTranspose2d(self.channels, 3, 2, 2)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        return self._drawn(*self._posterior(images), noise) * self.config.scale

    def decode(self, latents: Tensor) -> Tensor:
        if latents.ndim != 4:
            raise InputError("shape", f"got {tuple(latents.shape)}", where="latents", fits="(B, C, h, w)")
        return self.decoder(self.raw(latents))

    def raw(self, latents: Tensor) -> Tensor:
        return latents / self.config.scale

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        mean, logvar = self._posterior(images)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum((1, 2, 3)).mean()
        spread = logvar.detach().mean()
        return Reconstruction(self.decoder(self._drawn(mean, logvar, noise)), {"kl": kl}, {"logvar": spread})

    @property
    def last_layer(self) -> nn.Parameter:
        return self.decoder.weight

    def _posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.ndim != 4 or images.shape[2] % 2 or images.shape[3] % 2:
            raise InputError("size-multiple", f"got {tuple(images.shape)}", where="images", fits="even sides")
        mean, logvar = self.encoder(images).chunk(2, dim=1)
        return mean, logvar

    def _drawn(self, mean: Tensor, logvar: Tensor, noise: Tensor | None) -> Tensor:
        return mean if noise is None else mean + torch.exp(0.5 * logvar) * noise


class Unshuffled(Codec):
    """Patches of 2x2 pixels as channels: nothing to learn, nothing lost."""

    examples = (Example(trained=False, error=0.0),)
    channels, factor = 12, 2

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InputError("shape", f"got {tuple(images.shape)}", where="images", fits="(B, 3, H, W)")
        if images.shape[2] % 2 or images.shape[3] % 2:
            raise InputError("size-multiple", f"got {tuple(images.shape)}", where="images", fits="even sides")
        return nn.functional.pixel_unshuffle(images, 2)

    def decode(self, latents: Tensor) -> Tensor:
        if latents.ndim != 4 or latents.shape[1] != 12:
            raise InputError("shape", f"got {tuple(latents.shape)}", where="latents", fits="(B, 12, h, w)")
        return nn.functional.pixel_shuffle(latents, 2)


class Halves(Codec):
    """Another codec, upper and lower half of the picture one after the other."""

    examples = (Example(),)
    channels, factor = 4, 2

    def __init__(self, config: object = None):
        super().__init__(config)
        self.inner = PatchCodec()

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        if images.shape[2] < 4 or images.shape[2] % 4:
            return self.inner.encode(images, noise)
        upper, lower = images.chunk(2, 2)
        noises = (None, None) if noise is None else noise.chunk(2, 2)
        return torch.cat([self.inner.encode(upper, noises[0]), self.inner.encode(lower, noises[1])], 2)

    def decode(self, latents: Tensor) -> Tensor:
        return self.inner.decode(latents)

    def raw(self, latents: Tensor) -> Tensor:
        return self.inner.raw(latents)

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        return self.inner.reconstruct(images, noise)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.inner.last_layer
