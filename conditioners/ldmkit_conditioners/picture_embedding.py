"""The embedding of a picture as one vector: of a picture, by a CLIP vision encoder, or given, by a prior or a file."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor

from ldmkit import Conditioner, Example, InputError, Picture, Signal, SignalKind, Value, Vector, array_from_uri, rows_of
from ldmkit.bounds import Width
from ldmkit_conditioners.clip_image import ClipImageConfig
from ldmkit_conditioners.given import Numbers
from ldmkit_conditioners.vision_tower import VisionTower


class Embedded(Value):
    """A picture or its embedding, either alone or by name: `{"image": picture}`, `{"embedding": numbers}`.

    Args:
        image: the picture, for models that hold its encoder.
        embedding: (dim,), in the encoder's own units.
    """

    image: Picture | None = None
    embedding: Numbers | None = None

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, given: Any) -> Any:
        if isinstance(given, (dict, cls)):
            return given
        return {"embedding" if _is_vector(given) else "image": given}

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.image is None) == (self.embedding is None):
            what = "neither a picture nor an embedding" if self.image is None else "both a picture and an embedding"
            raise InputError("signal-type", what, fits="one of image and embedding")
        return self


def _is_vector(given: Any) -> bool:
    """Whether a bare value is an embedding: one axis of numbers, or the data URI of an array."""
    if isinstance(given, (Tensor, np.ndarray)):
        return given.ndim == 1
    if isinstance(given, (list, tuple)):
        return not any(isinstance(one, (list, tuple, Tensor, np.ndarray)) for one in given)
    return isinstance(given, str) and array_from_uri(given, None) is not None


class EmbeddedConfig(Value):
    """
    Args:
        dim: width of the embedding.
        encoder: the CLIP vision encoder, config of `clip-image` with `layer: projected`; None: embeddings only.
    """

    dim: Width = 768
    encoder: ClipImageConfig | None = None

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
            everywhere after normalisation (Kandinsky's); or `none`: its negative has to be given.
    """

    null: Literal["zeros", "blank", "none"] = "zeros"

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.encoder is None and self.null == "blank":
            raise ValueError("null blank is the encoder's embedding of a blank picture, and there is no encoder")
        return self


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
        encoder = self.config.encoder
        if value.embedding is not None and value.embedding.shape != (self.config.dim,):
            what = f"got shape {tuple(value.embedding.shape)}"
            raise InputError("signal-shape", what, where=where, fits=f"an embedding ({self.config.dim},)")
        if value.image is not None and encoder is None:
            what = "a picture, and the model holds no encoder of pictures"
            raise InputError("signal-type", what, where=where, fits=f"its embedding ({self.config.dim},)")
        if value.image is not None and encoder is not None:
            encoder.pictures.resized(*value.image.shape[-2:], where)
        return value

    def embeddings(self, inputs: list[Any]) -> Tensor:
        """(B, dim)."""
        pictures = [value.image for value in inputs if value.image is not None]
        encoded = iter(self._encoded(pictures) if pictures else ())
        rows = [next(encoded) if value.embedding is None else value.embedding for value in inputs]
        return torch.stack([row.to(self.device, self.dtype) for row in rows])

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
    )

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
        if self.config.null == "zeros" or self.tower is None:
            return Vector(torch.zeros_like(like.value))
        edge = self.tower.config.edge
        blank = self.tower.projected(self.tower.patches.weight.new_zeros(1, 3, edge, edge))
        return Vector(blank.to(like.value).expand(rows_of(like), -1))
