"""Embeddings as latents: standardised by their statistics, as the prior of unCLIP sees them."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from ldmkit import (
    Codec,
    CompositionError,
    Conditioner,
    Example,
    InputError,
    PartSpec,
    Reconstruction,
    Value,
    WeightsError,
    get,
)
from ldmkit.bounds import Width


class EmbeddingConfig(Value):
    """
    Args:
        dim: width of the embeddings.
        conditioner: the encoder that makes them of pictures in training, a conditioner of pictures for vectors of that
            width (`picture-embedding`), `{type, config}`; None: embeddings are given.
    """

    dim: Width = 768
    conditioner: PartSpec | None = None


class EmbeddingCodec(Codec):
    """Embeddings (B, dim) <-> latents (B, dim) of zero mean and unit variance: (e - mean) / std, per feature.

    The statistics are tensors of the model (`mean`, `std`), not its config; of a new codec they are 0 and 1, and
    `measured` takes them from embeddings. A codec whose `std` is not positive refuses to run: files of priors that were
    saved before their statistics were filled in have zeros there, and every embedding would come out as the mean.
    """

    Config = EmbeddingConfig
    config: EmbeddingConfig
    examples = (Example({"dim": 6}, trained=False, error=1e-6),)
    """One with an encoder is not for the kit, whose data it decodes; see `tests/training/test_prior_stage.py`."""
    axes = ()
    factor = 1
    mean: Tensor
    std: Tensor

    def __init__(self, config: EmbeddingConfig | None = None):
        super().__init__(config)
        self.channels = self.data_channels = self.config.dim
        self.register_buffer("mean", torch.zeros(self.config.dim))
        self.register_buffer("std", torch.ones(self.config.dim))
        spec = self.config.conditioner
        self.encoder = None if spec is None else _encoder(spec, self.config.dim)
        self.embeds = self.encoder is not None

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
        """Standardised embeddings, of embeddings or, with an encoder, of pictures (B, 3, H, W) in [-1, 1].

        Raises:
            InputError: another shape.
            WeightsError: `no-statistics`.
        """
        if self.encoder is not None and images.ndim == 4:
            images = self.embeddings(images)
        self._check(images, "images")
        return (images - self.mean.to(images)) / self.std.to(images)

    def embeddings(self, pictures: Tensor) -> Tensor:
        """The encoder's embeddings (B, dim) of pictures (B, 3, H, W) in [-1, 1], in its own units; `fit` takes them.

        Raises:
            CompositionError: `no-encoder`.
        """
        if self.encoder is None:
            what = "the codec has no encoder, so that it cannot read pictures"
            raise CompositionError("no-encoder", what, where="codec.conditioner", fits="a conditioner of pictures")
        rows = [self.encoder.parse(one.float(), f"images[{i}]") for i, one in enumerate(pictures)]
        with torch.no_grad():
            return self.encoder(rows).value.to(pictures)  # type: ignore[no-any-return]

    def fit(self, embeddings: Tensor) -> None:
        """Take the statistics of embeddings (N, dim); errors as for `measured`."""
        found = type(self).measured(embeddings)
        self.mean.copy_(found.mean)
        self.std.copy_(found.std)

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


def _encoder(spec: PartSpec, dim: int) -> Conditioner:
    """A conditioner of pictures for vectors (B, dim).

    Raises:
        CompositionError: `encoder-mismatch`: another kind of signal, or another width.
    """
    made: Conditioner = get("conditioner", spec.type)(spec.config)
    if (made.kind, made.dim) != ("vector", dim):
        what = f"the encoder {spec.type!r} makes {made.kind} signals of width {made.dim}"
        raise CompositionError("encoder-mismatch", what, where="codec.conditioner", fits=f"vectors of width {dim}")
    return made.requires_grad_(False)


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
