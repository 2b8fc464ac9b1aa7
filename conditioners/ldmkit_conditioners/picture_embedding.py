"""The embedding of a picture as one vector: of a picture, by a CLIP vision encoder, or given, by a prior or a file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import torch
from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator
from torch import Tensor, nn

from ldmkit import (
    Conditioner,
    Example,
    InputError,
    Picture,
    Signal,
    SignalKind,
    SourceError,
    Value,
    Vector,
    array_from_uri,
    rows_of,
)
from ldmkit.bounds import Width
from ldmkit.run.written import read_values
from ldmkit_conditioners.clip_image import ClipImageConfig
from ldmkit_conditioners.given import read_numbers, write_numbers
from ldmkit_conditioners.vision_tower import VisionTower


def _is_file(given: Any) -> bool:
    return isinstance(given, (str, Path)) and str(given).lower().endswith(".safetensors")


def read_saved(raw: Any) -> Tensor:
    """An embedding as `read_numbers` reads it, or from the safetensors file in which a prior's result was saved.

    Raises:
        InputError: see `read_numbers`; `no-embedding`: another file.
    """
    if not _is_file(raw):
        return read_numbers(raw)
    try:
        return read_numbers(read_values(Path(raw)))
    except SourceError as problem:
        fits = "the result of a prior, as its pipeline saved it"
        what = f"there is no embedding in the file: {problem.what}"
        raise InputError("no-embedding", what, where=str(raw), fits=fits) from None


Saved: TypeAlias = Annotated[
    Any,
    PlainValidator(read_saved),
    PlainSerializer(write_numbers, return_type=str, when_used="json"),
    WithJsonSchema({"type": "array", "title": "Numbers", "items": {}}),
]
"""Pydantic type of an embedding."""


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Spherical interpolation (D,) -> (D,), along the arc between the directions (Shoemake 1985); lengths are
    weighted as the directions are. A share of 0 is the first, 1 the second.

    Raises:
        InputError: `slerp`: the directions are opposite, or a vector is zero, so that there is no arc.
    """
    norms = first.norm() * second.norm()
    cosine = float((first @ second / norms).clamp(-1, 1)) if float(norms) > 0 else -1.0
    if cosine < -1 + 1e-6:
        what = "between embeddings of opposite directions, or of zeros, there is no arc"
        raise InputError("slerp", what, where="between", fits="two embeddings of different pictures")
    angle = math.acos(cosine)
    if angle < 1e-3:  # the arc is a line, and its formula 0 / 0
        return torch.lerp(first, second, share)
    near, far = math.sin((1 - share) * angle), math.sin(share * angle)
    return (near * first + far * second) / math.sin(angle)


class Embedded(Value):
    """A picture or its embedding, either alone or by name: `{"image": picture}`, `{"embedding": numbers}`; or what lies
    between two of them: `{"between": [first, second], "share": 0.3}`.

    Args:
        image: the picture, for models that hold its encoder.
        embedding: (dim,), in the encoder's own units, or the safetensors file of a prior's result.
        between: two of these, pictures or embeddings, whose embeddings are interpolated spherically.
        share: of the second one, from 0 to 1; None: half.
    """

    image: Picture | None = None
    embedding: Saved | None = None
    between: tuple[Embedded, Embedded] | None = None
    share: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, given: Any) -> Any:
        if isinstance(given, (dict, cls)):
            return given
        return {"embedding" if _is_vector(given) else "image": given}

    @model_validator(mode="after")
    def _one(self) -> Self:
        words = {"image": "a picture", "embedding": "an embedding", "between": "what lies between two"}
        given = [word for name, word in words.items() if getattr(self, name) is not None]
        if len(given) != 1:
            what = "neither a picture nor an embedding" if not given else f"both {given[0]} and {given[1]}"
            raise InputError("signal-type", what, fits="one of image, embedding and between")
        if self.between is None and self.share is not None:
            raise InputError("signal-type", "a share of one picture alone", where="share", fits="between: two of them")
        return self

    @property
    def leaves(self) -> tuple[Embedded, ...]:
        """The pictures and embeddings themselves."""
        if self.between is None:
            return (self,)
        return (*self.between[0].leaves, *self.between[1].leaves)


def _is_vector(given: Any) -> bool:
    """Whether a bare value is an embedding: one axis of numbers, or the data URI of an array."""
    if isinstance(given, (Tensor, np.ndarray)):
        return given.ndim == 1
    if isinstance(given, (list, tuple)):
        return not any(isinstance(one, (list, tuple, Tensor, np.ndarray)) for one in given)
    return _is_file(given) or (isinstance(given, str) and array_from_uri(given, None) is not None)


class EmbeddedConfig(Value):
    """
    Args:
        dim: width of the embedding.
        encoder: the CLIP vision encoder, config of `clip-image` with `layer: projected`; None: embeddings only.
        norm: the usual norm of an embedding, which those of a call may be a quarter to six times of; None: any norm.
    """

    dim: Width = 768
    encoder: ClipImageConfig | None = None
    norm: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _encoder_fits(self) -> Self:
        if self.encoder is not None and (self.encoder.layer != "projected" or self.encoder.projection != self.dim):
            what = f"the encoder gives {self.encoder.layer} states of width {self.encoder.dim}"
            raise ValueError(f"{what}: this requires layer projected and dim {self.encoder.projection}")
        return self


class PictureEmbeddingConfig(EmbeddedConfig):
    """
    Args:
        null: what a dropped condition is: zeros; `blank`, the encoder's embedding of a picture that is zero
            everywhere after normalisation (Kandinsky's); `learned`, a parameter (unCLIP's decoder); or `none`: its
            negative has to be given.
    """

    null: Literal["zeros", "blank", "learned", "none"] = "zeros"

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.encoder is None and self.null == "blank":
            raise ValueError("null blank is the encoder's embedding of a blank picture, and there is no encoder")
        return self


def check_norm(embedding: Tensor, usual: float | None, where: str) -> None:
    """Refuse an embedding that is not in the encoder's own units; zeros, of which one is made, stand for none.

    Raises:
        InputError: `embedding-norm`.
    """
    norm = float(embedding.norm())
    if usual is None or norm == 0 or usual / 4 <= norm <= usual * 6:
        return
    what = f"an embedding of norm {norm:.3g}; those that the model knows have about {usual:.3g}"
    raise InputError("embedding-norm", what, where=where, fits="the encoder's own numbers, not normalised")


def small_encoder(dim: int) -> dict[str, Any]:
    """A small encoder, for examples."""
    shape = {"width": 16, "layers": 2, "heads": 2, "mlp": 32, "edge": 8, "patch": 4, "projection": dim}
    return {**shape, "pictures": {"shortest": 8, "crop": (8, 8)}}


PICTURES = tuple(np.full((10, 12, 3), level, np.uint8) for level in (20, 120, 250))


class EmbeddedPicture(Conditioner):
    """Base class of conditioners that read an `Embedded`."""

    Config: ClassVar[type[EmbeddedConfig]] = EmbeddedConfig
    Input: ClassVar[Any] = Embedded
    kind: SignalKind = "vector"

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim = self.config.dim
        self.tower = None if self.config.encoder is None else VisionTower(self.config.encoder)

    @classmethod
    def from_text(cls, text: str) -> Any:
        """A path or a data URI, or JSON."""
        return super().from_text(text) if text.lstrip().startswith(("[", "{")) else text

    def parse(self, raw: Any, where: str) -> Any:
        value = super().parse(raw, where)
        for leaf in value.leaves:
            self._check(leaf, where)
        return value

    def _check(self, value: Embedded, where: str) -> None:
        encoder, dim = self.config.encoder, self.config.dim
        if value.embedding is not None and value.embedding.shape != (dim,):
            what = f"got shape {tuple(value.embedding.shape)}"
            raise InputError("signal-shape", what, where=where, fits=f"an embedding ({dim},)")
        if value.embedding is not None:
            check_norm(value.embedding, self.config.norm, where)
        if value.image is not None and encoder is None:
            what = "a picture, and the model holds no encoder of pictures"
            raise InputError("signal-type", what, where=where, fits=f"its embedding ({dim},)")
        if value.image is not None and encoder is not None:
            encoder.pictures.resized(*value.image.shape[-2:], where)

    def embeddings(self, inputs: list[Any]) -> Tensor:
        """(B, dim)."""
        pictures = [leaf.image for value in inputs for leaf in value.leaves if leaf.image is not None]
        encoded = iter(self._encoded(pictures) if pictures else ())
        return torch.stack([self._embedding(value, encoded).to(self.device, self.dtype) for value in inputs])

    def _embedding(self, value: Embedded, encoded: Iterator[Tensor]) -> Tensor:
        """(dim,); those of pictures are taken from `encoded`, in the order of the leaves."""
        if value.between is not None:
            first, second = (self._embedding(one, encoded) for one in value.between)
            return slerp(first.float(), second.float().to(first.device), 0.5 if value.share is None else value.share)
        if value.embedding is None:
            return next(encoded)
        embedding: Tensor = value.embedding
        return embedding

    def example(self, size: tuple[int, int]) -> Any:
        return self.parse([0.0] * self.config.dim, "example")

    def _encoded(self, pictures: list[Tensor]) -> Tensor:
        assert self.tower is not None and self.config.encoder is not None
        pixels = torch.stack([self.config.encoder.pictures(picture) for picture in pictures])
        return self.tower.projected(pixels.to(self.tower.patches.weight))


class PictureEmbedding(EmbeddedPicture):
    """One embedding a row, (B, dim)."""

    Config: ClassVar[type[PictureEmbeddingConfig]] = PictureEmbeddingConfig
    config: PictureEmbeddingConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example({"dim": 3}, ([1, 2, 3], {"embedding": [4, 5, 6.5]}, [7, 8, 9]), vary={"null": ["zeros"]}),
        Example(
            {"dim": 6, "encoder": small_encoder(6), "null": "blank"},
            (*PICTURES[:2], [0.5] * 6),
            trained=False,
            vary={"null": ["zeros", "blank"]},
        ),
        Example({"dim": 3, "null": "learned"}, ([1, 2, 3], [4, 5, 6.5]), trained=False, vary={"null": ["learned"]}),
    )

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.empty = nn.Parameter(torch.zeros(self.dim)) if self.config.null == "learned" else None

    def forward(self, inputs: list[Any]) -> Vector:
        return Vector(self.embeddings(inputs))

    def null(self, like: Signal) -> Vector:
        """See the config.

        Raises:
            InputError: `missing-condition`: with `null: none`.
        """
        assert isinstance(like, Vector)
        if self.config.null == "none":
            what = "what takes the place of the embedding where it is dropped is not known without its encoder"
            fits = "negative={...: the embedding of a picture that is zero after normalisation}, or an encoder"
            raise InputError("missing-condition", what, where="negative", fits=fits)
        if self.empty is not None:
            return Vector(self.empty.to(like.value).expand_as(like.value))
        if self.config.null == "zeros" or self.tower is None:
            return Vector(torch.zeros_like(like.value))
        edge = self.tower.config.edge
        blank = self.tower.projected(self.tower.patches.weight.new_zeros(1, 3, edge, edge))
        return Vector(blank.to(like.value).expand(rows_of(like), -1))
