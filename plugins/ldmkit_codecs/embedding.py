"""Embeddings as latents: standardised by their statistics, as the prior of unCLIP sees them."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from ldmkit import Codec, Example, InputError, Reconstruction, Value, WeightsError
from ldmkit.bounds import Width


class EmbeddingConfig(Value):
    """Args: dim: width of the embeddings."""

    dim: Width = 768


class EmbeddingCodec(Codec):
    """Embeddings (B, dim) <-> latents (B, dim) of zero mean and unit variance: (e - mean) / std, per feature.

    The statistics are tensors of the model (`mean`, `std`), not its config; of a new codec they are 0 and 1, and
    `measured` takes them from embeddings. A codec whose `std` is not positive refuses to run: files of priors that were
    saved before their statistics were filled in have zeros there, and every embedding would come out as the mean.
    """

    Config = EmbeddingConfig
    config: EmbeddingConfig
    examples = (Example({"dim": 6}, trained=False, error=1e-6),)
    axes = ()
    factor = 1
    mean: Tensor
    std: Tensor

    def __init__(self, config: EmbeddingConfig | None = None):
        super().__init__(config)
        self.channels = self.data_channels = self.config.dim
        self.register_buffer("mean", torch.zeros(self.config.dim))
        self.register_buffer("std", torch.ones(self.config.dim))

    @classmethod
    def measured(cls, embeddings: Tensor) -> Self:
        """A codec with the statistics of embeddings (N, dim), computed in float64.

        Raises:
            InputError: `shape`: fewer than two rows; `embedding-constant`: a feature does not vary.
        """
        if embeddings.ndim != 2 or len(embeddings) < 2 or not embeddings.is_floating_point():
            what = f"got shape {tuple(embeddings.shape)} of {embeddings.dtype}"
            raise InputError("shape", what, where="embeddings", fits="floating numbers (2 or more, dim)")
        wide = embeddings.detach().double()
        std = wide.std(dim=0, correction=0)
        if not bool((std > 0).all() & std.isfinite().all()):
            places = [i for i, value in enumerate(std.tolist()) if not 0 < value < float("inf")]
            what = f"{len(places)} of {len(std)} features do not vary or are not finite, the first is {places[0]}"
            raise InputError("embedding-constant", what, where="embeddings", fits="more embeddings, or fewer features")
        codec = cls(EmbeddingConfig(dim=embeddings.shape[1]))
        codec.mean.copy_(wide.mean(dim=0))
        codec.std.copy_(std)
        return codec

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Standardised embeddings.

        Raises:
            InputError: another shape.
            WeightsError: `no-statistics`.
        """
        self._check(images, "images")
        return (images - self.mean.to(images)) / self.std.to(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Embeddings in their own units; errors as for `encode`."""
        self._check(latents, "latents")
        return latents * self.std.to(latents) + self.mean.to(latents)

    def raw(self, latents: Tensor) -> Tensor:
        """The same as `decode`."""
        return self.decode(latents)

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """The embeddings, without any loss."""
        return Reconstruction(self.decode(self.encode(images)), {}, {})

    def _check(self, value: Tensor, where: str) -> None:
        if value.ndim != 2 or value.shape[1] != self.channels or 0 in value.shape:
            what, fits = f"got shape {tuple(value.shape)}", f"(batch, {self.channels})"
            raise InputError("shape", what, where=where, fits=fits)
        if not value.is_floating_point():
            raise InputError("dtype", f"got {value.dtype}", where=where, fits="a floating dtype")
        if not value.is_meta:
            check_statistics(self.mean, self.std, "codec")


def check_statistics(mean: Tensor, std: Tensor, where: str) -> None:
    """Check the statistics of embeddings, (dim,) or (1, dim) each.

    Raises:
        WeightsError: `no-statistics`: deviations that are zero, negative or not finite, or means that are not finite.
    """
    if bool((std > 0).all() & std.isfinite().all() & mean.isfinite().all()):
        return
    zero = not bool(std.any())
    what = (
        "the statistics of the embeddings are all zero" if zero else "some deviation of the embeddings is not above 0"
    )
    fits = "a file with the mean and deviation of the embeddings, or EmbeddingCodec.measured(embeddings)"
    raise WeightsError("no-statistics", what, where=where, fits=fits)
