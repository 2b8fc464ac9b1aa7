"""Embeddings of pictures that the caller brings, from an image encoder that the pipeline does not hold."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ldmkit import Conditioner, Example, InputError, Signal, SignalKind, Tokens, Value, cat_rows
from ldmkit.bounds import Length, Width
from ldmkit_conditioners.given import Numbers


class ImageEmbeddingConfig(Value):
    """
    Args:
        dim: of the embeddings.
        length: tokens of a picture.
        null: what a dropped condition is: zeros; or `none`: its negative has to be given.
    """

    dim: Width = 1024
    length: Length = 1
    null: Literal["zeros", "none"] = "zeros"


class ImageEmbedding(Conditioner):
    """Embeddings (pictures, length, dim) of one sample, or (pictures, dim) where a picture has one, as tokens.

    (length, dim) is one picture. With `null: none` guidance wants a negative: what the encoder gives for pictures that
    are zero everywhere after normalisation, which is not known here.

    Raises:
        InputError: `signal-blank`: one of several embeddings is zeros.
    """

    Config: ClassVar[type[ImageEmbeddingConfig]] = ImageEmbeddingConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example({"dim": 3}, ([[1, 2, 3], [4, 5, 6.5]], [[7, 8, 9]], [[1, 0, 1]] * 3), vary={"null": ["zeros"]}),
        Example({"dim": 2, "length": 2}, ([[1, 2], [3, 4]], [[[5, 6], [7, 8]]], [[[1, 2], [3, 4]]] * 2)),
    )
    Input: ClassVar[Any] = Numbers
    kind: SignalKind = "tokens"

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim = self.config.dim

    def parse(self, raw: Any, where: str) -> Tensor:
        tensor: Tensor = super().parse(raw, where)
        pictures = self._tokens(tensor, where).unflatten(0, (-1, self.config.length))
        blank = [i for i, picture in enumerate(pictures) if not bool(picture.any())]
        if blank and len(pictures) > 1:
            what = f"embedding {blank[0]} of {len(pictures)} is zeros, which is what a dropped picture is"
            fits = "pictures' own ones; of diffusers' ip_adapter_image_embeds, [negative, positive], the second half"
            raise InputError("signal-blank", what, where=where, fits=fits)
        return tensor

    def forward(self, inputs: list[Tensor]) -> Tokens:
        rows: list[Signal] = [Tokens(self._tokens(tensor, "image")[None]) for tensor in inputs]
        return cat_rows(rows)  # type: ignore[return-value]

    def null(self, like: Signal) -> Tokens:
        """Zeros.

        Raises:
            InputError: `missing-condition`: with `null: none`.
        """
        assert isinstance(like, Tokens)
        if self.config.null == "none":
            what = "what takes the place of the embeddings where they are dropped is not known without their encoder"
            fits = "negative={...: the encoder's states for a picture that is zero after normalisation}, or an encoder"
            raise InputError("missing-condition", what, where="negative", fits=fits)
        return Tokens(torch.zeros_like(like.value), like.mask)

    def _tokens(self, tensor: Tensor, where: str) -> Tensor:
        """(pictures x length, dim)."""
        dim, length = self.config.dim, self.config.length
        if tensor.ndim == 2 and tensor.shape[1] == dim and tensor.shape[0] % length == 0 and len(tensor):
            return tensor
        if tensor.ndim == 3 and tensor.shape[1:] == (length, dim) and len(tensor):
            return tensor.flatten(0, 1)
        one = f"(pictures, {dim})" if length == 1 else f"({length}, {dim})"
        fits = f"(pictures, {length}, {dim}), or {one}"
        raise InputError("signal-shape", f"got shape {tuple(tensor.shape)}", where=where, fits=fits)
