"""Pixel space: pictures are their own latents."""

from __future__ import annotations

from torch import Tensor

from ldmkit import Codec, Example, Reconstruction, Value
from ldmkit.bounds import Width
from ldmkit_codecs.shapes import check_images, check_latents


class IdentityConfig(Value):
    """Args: channels: channels of pictures."""

    channels: Width = 3


class IdentityCodec(Codec):
    """Pictures (B, channels, H, W) in [-1, 1] <-> the same tensor. For pixel-space models."""

    Config = IdentityConfig
    config: IdentityConfig
    examples = (Example(trained=False, error=0.0),)
    factor = 1

    def __init__(self, config: IdentityConfig | None = None):
        super().__init__(config)
        self.channels = self.config.channels

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """The pictures themselves.

        Raises:
            InputError: another shape.
        """
        check_images(images, self.channels, 1)
        return images

    def decode(self, latents: Tensor) -> Tensor:
        """The latents themselves.

        Raises:
            InputError: another shape.
        """
        check_latents(latents, self.channels)
        return latents

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """The pictures, without any loss."""
        return Reconstruction(self.encode(images), {}, {})
