"""The contract of codecs: the first stage, data (pictures, videos, vectors) to latents and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from ldmkit.contracts.axes import Axis
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

    Scale, shift, posterior and quantiser are its own business. A codec of other data says its `axes`: videos
    (B,3,T,H,W) in [-1,1] <-> (B,channels,t,h,w) have three, vectors (B,data_channels) <-> (B,channels) have none.
    Where the docstrings say pictures, they mean its data."""

    channels: int
    factor: int
    """Pixels that a latent cell is high and wide; read only by the default `axes` and by conditioners of planes."""
    data_channels: int = 3
    """Channels of what it encodes: 3 of pictures and videos, the length of vectors."""

    @property
    def multiple(self) -> int:
        """Heights and widths of pictures must be multiples of this."""
        return self.factor

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of its latents behind batch and channels; a class may set a tuple. Defaults to height and width."""
        return (Axis("height", self.factor, self.multiple), Axis("width", self.factor, self.multiple))

    @property
    def visual(self) -> bool:
        """Whether its data are colours in [-1,1]: pictures (two axes) or videos (three). Others are plain numbers."""
        return len(self.axes) in (2, 3)

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

    def decode_with(self, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        """`decode` for a decoder that draws noise (a consistency decoder): what runs call. Optional.

        `noise(i)` is unit normal of what is returned, (B,data_channels,*size), another draw for each i >= 0; a row's
        depends on that row's seed alone. Such a codec's `decode` and `preview` draw nothing: they use noise of zeros,
        say. The default draws nothing either."""
        return self.decode(latents)

    def raw(self, latents: Tensor) -> Tensor:
        """Standardised latents in the encoder's own units; the same where a codec neither scales nor shifts."""
        return latents

    def preview(self, latents: Tensor) -> Tensor:
        """A cheap decode for progress pictures; may be small. Defaults to `decode`."""
        return self.decode(latents)

    def footprint(self, batch: int, size: tuple[int, ...], direction: Direction) -> Work:
        """What one `encode` or `decode` of `batch` pictures takes, without running it. Optional.

        `size` is that of the pictures, one number an axis: (height, width)."""
        return Work()

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """Encode and decode with the regulariser's loss, for training. Optional."""
        raise CompositionError("not-trainable", f"{type(self).__name__} cannot be trained: it has no reconstruct()")

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the decoder's last convolution, for the adaptive adversarial weight. Optional."""
        raise CompositionError("not-trainable", f"{type(self).__name__} names no last layer")
