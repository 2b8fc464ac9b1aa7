"""Codecs that break one promise each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from broken_modules import module_faults
from broken_placed import KeepsLatents
from good_codec import Halves, PatchCodec, Unshuffled
from torch import Tensor, nn

from ldmkit import Axis, Reconstruction


class Declared(PatchCodec):
    @property
    def multiple(self) -> int:
        return 3


class Transposed(PatchCodec):
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        return super().encode(images, noise).transpose(2, 3)


class OddSizesDecoded(PatchCodec):
    """Decodes to an even number of cells only."""

    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents[..., : latents.shape[3] // 2 * 2])


class RoundsSizes(PatchCodec):
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        height, width = (side // 2 * 2 for side in images.shape[2:])
        return super().encode(images[..., :height, :width], noise)


class WrongError(PatchCodec):
    """Refuses other sizes with what happens to arise."""

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        if images.shape[2] % 2 or images.shape[3] % 2:
            raise RuntimeError("shape mismatch")
        return super().encode(images, noise)


class TakesIntegers(PatchCodec):
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        return super().encode(images.to(self.dtype), noise)


class DeadChannel(PatchCodec):
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        latents = super().encode(images, noise)
        return torch.cat([latents[:, :-1], torch.ones_like(latents[:, :1])], 1)


class OwnNoise(PatchCodec):
    """Draws its own noise when asked to draw."""

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        return super().encode(images, None if noise is None else torch.ones_like(noise))


class OtherNoise(PatchCodec):
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        return super().encode(images, None if noise is None else torch.randn_like(noise))


class CurvedRaw(PatchCodec):
    def raw(self, latents: Tensor) -> Tensor:
        return latents + 0.1 * latents.square()


class MixedRaw(PatchCodec):
    """Swaps channels, which only one number a channel would not."""

    def raw(self, latents: Tensor) -> Tensor:
        return latents.flip(1)


class BlindChannel(PatchCodec):
    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(torch.cat([torch.zeros_like(latents[:, :1]), latents[:, 1:]], 1))


class Lossy(Unshuffled):
    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents).clamp(-0.9, 0.9)


class FlatPreview(PatchCodec):
    def preview(self, latents: Tensor) -> Tensor:
        return super().preview(latents).mean(1)


class RoundedDecode(PatchCodec):
    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents + (latents.round() - latents).detach() - latents + latents.detach())


class InferenceDecode(PatchCodec):
    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents)


class Drawing(PatchCodec):
    """A decoder that draws, as one should: the broken ones are made from it."""

    def decode_with(self, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        return self.decode(latents) + 0.1 * noise(0)


class DrawsElsewhere(Drawing):
    """Its grain is always the same, whatever noise it is given."""

    def decode_with(self, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        return super().decode_with(latents, lambda index: torch.ones_like(noise(index)))


class DrawsUnasked(Drawing):
    """It has noise of its own, and asks for none."""

    def decode_with(self, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        return super().decode_with(latents, lambda index: torch.ones(()))


class DrawsBelowZero(Drawing):
    def decode_with(self, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        return super().decode_with(latents, lambda index: noise(-1))


class DrawsOutsideOfGradients(Drawing):
    def decode_with(self, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        return super().decode_with(latents.detach(), noise)


class DrawsForTheBatch(Drawing):
    """All rows get the noise of the first."""

    def decode_with(self, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        return super().decode_with(latents, lambda index: noise(index)[:1])


class NoAxes(PatchCodec):
    axes = (2, 2)  # type: ignore[assignment]


class OddMultiple(PatchCodec):
    axes = (Axis("height", 2, 3), Axis("width", 2))


class SaysVideo(PatchCodec):
    """Its axes are not those that it has."""

    axes = (Axis("frames"), Axis("height", 2), Axis("width", 2))


class LossPerRow(PatchCodec):
    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        made = super().reconstruct(images, noise)
        return made._replace(losses={"kl": made.losses["kl"] * torch.ones(len(images))})


class MetricsThatTrain(PatchCodec):
    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        made = super().reconstruct(images, noise)
        return made._replace(metrics={"kl": made.losses["kl"]})


class ForgetsToUndo(PatchCodec):
    """Decodes standardised latents as if they were raw."""

    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents * self.config.scale)


class BareNoise(PatchCodec):
    """Scales the mean, and not the noise."""

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        mode = super().encode(images)
        return mode if noise is None else mode + (super().encode(images, noise) - mode) / self.config.scale


class CopiedLayer(PatchCodec):
    @property
    def last_layer(self) -> nn.Parameter:
        return nn.Parameter(self.decoder.weight.detach().clone())


class FirstLayer(PatchCodec):
    """Names a layer that the pictures do not depend on."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.other = nn.Conv2d(3, 3, 1)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.other.weight


class SilentlyUntrainable(Unshuffled):
    @property
    def last_layer(self) -> Any:
        return None


class Seam(Halves):
    """The inner codec sees a row of zeros at every seam."""

    def decode(self, latents: Tensor) -> Tensor:
        middle = latents.shape[2] // 2
        return self.inner.decode(torch.cat([latents[:, :, :middle], 0 * latents[:, :, middle:]], 2))


class OtherRaw(Halves):
    """Forgets the inner codec's scale."""

    def raw(self, latents: Tensor) -> Tensor:
        return latents


class OwnMultiple(Halves):
    @property
    def multiple(self) -> int:
        return 8


BROKEN: dict[str, list[type[Any]]] = {
    "declared": [Declared, NoAxes, OddMultiple],
    "shape": [Transposed, OddSizesDecoded, SaysVideo],
    "other-sizes": [RoundsSizes, WrongError],
    "wrong-tensors": [TakesIntegers],
    "statistics": [DeadChannel],
    "posterior": [OwnNoise, OtherNoise],
    "raw": [CurvedRaw, MixedRaw],
    "decode-reads-all": [BlindChannel],
    "round-trip": [Lossy],
    "preview": [FlatPreview],
    "decode-gradient": [RoundedDecode, InferenceDecode],
    "decode-noise": [DrawsElsewhere, DrawsUnasked, DrawsBelowZero, DrawsOutsideOfGradients],
    "reconstruct": [LossPerRow, MetricsThatTrain],
    "reconstruct-agrees": [ForgetsToUndo, BareNoise],
    "last-layer": [CopiedLayer, FirstLayer],
    "not-trainable": [SilentlyUntrainable],
    "tiles": [Seam, OtherRaw, OwnMultiple],
    "placed": [KeepsLatents],
    **{name: [cls] for name, cls in module_faults(PatchCodec, "encode").items()},
}
BROKEN["batch-invariance"].append(DrawsForTheBatch)
"""Check -> parts that it must catch."""
