"""The contract of codecs: the first stage, pictures to latents and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from ldmkit.contracts.part import Part
from ldmkit.contracts.work import Direction, Work
from ldmkit.errors import CompositionError


class Reconstruction(NamedTuple):
    """What a trainable codec returns for a batch: pictures (B,3,H,W) and its regulariser's losses by name (scalars)."""

    images: Tensor
    losses: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor]


class Codec(Part, ABC):
    """First stage: pictures (B,3,H,W) in [-1,1] <-> latents (B,channels,H/factor,W/factor) of about unit variance.

    Scale, shift, posterior and quantiser are its own business."""

    channels: int
    factor: int

    @property
    def multiple(self) -> int:
        """Heights and widths of pictures must be multiples of this."""
        return self.factor

    @property
    def standardises(self) -> bool:
        """Whether the scale of its latents is known: a first stage's own file may not say it."""
        return True

    @abstractmethod
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents of pictures; `noise` (unit normal, latent shape) samples the posterior, None takes its mode.

        Sides that are no multiples of `multiple` are an `InputError`."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents; differentiable; not clipped. A VQ codec quantises in here."""

    def raw(self, latents: Tensor) -> Tensor:
        """Standardised latents in the encoder's own units; the same where a codec neither scales nor shifts."""
        return latents

    def preview(self, latents: Tensor) -> Tensor:
        """A cheap decode for progress pictures; may be small. Defaults to `decode`."""
        return self.decode(latents)

    def footprint(self, batch: int, size: tuple[int, int], direction: Direction) -> Work:
        """What one `encode` or `decode` of `batch` pictures of (height, width) takes, without running it. Optional."""
        return Work()

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """Encode and decode with the regulariser's loss, for training. Optional."""
        raise CompositionError("not-trainable", f"{type(self).__name__} cannot be trained: it has no reconstruct()")

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the decoder's last convolution, for the adaptive adversarial weight. Optional."""
        raise CompositionError("not-trainable", f"{type(self).__name__} names no last layer")
