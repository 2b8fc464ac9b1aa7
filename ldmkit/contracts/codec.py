"""The contract of codecs (first stages), which map data (pictures, videos, vectors) to latents and back."""

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
    """What a trainable codec returns for a batch: reconstructions (B,3,H,W), and the losses of its regulariser and
    metrics for logging, both scalars by name."""

    images: Tensor
    losses: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor]


class Codec(Part, ABC):
    """First stage: pictures (B,3,H,W) in [-1,1] <-> latents (B,channels,H/factor,W/factor) of about unit variance.

    Scale, shift, posterior and quantiser are internal to the codec. A codec for other data declares its `axes`: three
    for videos, (B,3,T,H,W) in [-1,1] <-> (B,channels,t,h,w), none for vectors, (B,data_channels) <-> (B,channels).
    The docstrings below say "pictures" for whatever data the codec handles."""

    channels: int
    factor: int
    """Spatial downsampling factor; read only by the default `axes` and by conditioners that emit planes."""
    embeds: bool = False
    """Whether `encode` takes pictures although the data are vectors. Training recipes, whose data are pictures, then
    take the codec, and the denoiser learns to make embeddings of pictures."""
    data_channels: int = 3
    """Channels of the data: 3 for pictures and videos, the length for vectors."""

    @property
    def multiple(self) -> int:
        """Heights and widths of pictures must be multiples of this."""
        return self.factor

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Axes of the latents after batch and channels; a class may set a tuple. Defaults to height and width."""
        return (Axis("height", self.factor, self.multiple), Axis("width", self.factor, self.multiple))

    @property
    def visual(self) -> bool:
        """Whether the data are colours in [-1,1], i.e. pictures (two axes) or videos (three)."""
        return len(self.axes) in (2, 3)

    @property
    def standardises(self) -> bool:
        """Whether the latents have a known scale; the checkpoint of a first stage alone may not contain it."""
        return True

    @abstractmethod
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents of pictures. `noise` (unit normal, latent shape) samples the posterior; None takes its mode.

        Raises:
            InputError: a side is not a multiple of `multiple`."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures from latents; differentiable and not clipped. A VQ codec quantises here."""

    def decode_with(self, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        """`decode` for a decoder that draws noise (a consistency decoder). Runs call this method. Optional.

        `noise(i)` is unit normal in the shape of the result, (B,data_channels,*size), an independent draw for each
        i >= 0; each row depends on its own seed only. `decode` and `preview` of such a codec must be deterministic,
        for example by using zeros as noise. The default calls `decode` and draws nothing."""
        return self.decode(latents)

    def raw(self, latents: Tensor) -> Tensor:
        """Standardised latents converted to the encoder's units; unchanged if the codec neither scales nor shifts."""
        return latents

    def preview(self, latents: Tensor) -> Tensor:
        """A cheap decode for progress pictures, possibly at a lower resolution. Defaults to `decode`."""
        return self.decode(latents)

    def footprint(self, batch: int, size: tuple[int, ...], direction: Direction) -> Work:
        """Estimated cost of one `encode` or `decode` of `batch` pictures, without running it. Optional.

        `size` is the size of the pictures, one number per axis: (height, width)."""
        return Work()

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """Encode and decode, with the regulariser's losses, for training. Optional."""
        raise CompositionError("not-trainable", f"{type(self).__name__} cannot be trained: it has no reconstruct()")

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the decoder's last convolution, for the adaptive adversarial weight. Optional."""
        raise CompositionError("not-trainable", f"{type(self).__name__} does not define last_layer")
