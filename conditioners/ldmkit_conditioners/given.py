"""Ready-made conditions: the caller provides the signal, for example from an encoder that is not part of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from torch import Tensor

from ldmkit import (
    Conditioner,
    Example,
    InputError,
    Plane,
    Signal,
    SignalKind,
    Tokens,
    Value,
    Vector,
    array_from_uri,
    array_uri,
    cat_rows,
)
from ldmkit.bounds import Rows, Width
from ldmkit.files.pictures import dense, unmasked

_AXES = {"tokens": 2, "vector": 1, "plane": 3}
_SHAPES = {"tokens": "(length, {dim})", "vector": "({dim},)", "plane": "({dim}, height, width)"}


def read_numbers(raw: Any) -> Tensor:
    """Numbers as a float32 tensor, from a tensor, an array, nested lists, or an NPY data URI as recipes hold it.

    Raises:
        InputError: ragged lists, values other than numbers, NaN or infinities.
    """
    stored = array_from_uri(raw, None)
    raw = raw if stored is None else stored
    raw = dense(raw).detach() if isinstance(raw, Tensor) else unmasked(raw) if isinstance(raw, np.ndarray) else raw
    try:
        tensor = torch.as_tensor(raw)
        tensor = tensor.to(torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        what = f"a {type(raw).__name__} that is not an array of numbers"
        raise InputError("signal-type", what, fits="nested lists of numbers, all of one length") from None
    if not bool(torch.isfinite(tensor).all()):
        raise InputError("signal-finite", "NaN or infinity among the numbers", fits="finite numbers")
    return tensor


def write_numbers(numbers: Tensor) -> str:
    """The NPY data URI from which `read_numbers` restores exactly these numbers."""
    return array_uri(numbers.detach().cpu().numpy())


Numbers: TypeAlias = Annotated[
    Any,
    PlainValidator(read_numbers),
    PlainSerializer(write_numbers, return_type=str, when_used="json"),
    WithJsonSchema({"type": "array", "title": "Numbers", "items": {}}),
]
"""Pydantic type of a ready-made signal of one sample."""


class GivenConfig(Value):
    """
    Args:
        kind: of the signal.
        dim: D of tokens and vectors, C of planes.
        below: numbers are rows of a table of this length: whole, and from 0 to below - 1; None: any numbers.
    """

    kind: Literal["tokens", "vector", "plane"] = "tokens"
    dim: Width = 768
    below: Rows | None = None


class Given(Conditioner):
    """The given signal of one sample: tokens (L, dim), a vector (dim,) or a plane (dim, h, w). The null is zeros."""

    Config: ClassVar[type[GivenConfig]] = GivenConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example({"dim": 3}, ([[1, 2, 3], [4, 5, 6.5]], [[7, 8, 9]], [[1, 0, 1]] * 3)),
        Example({"kind": "vector", "dim": 2}, ([1, 2], [3, 4], [5, 6])),
        Example({"kind": "vector", "dim": 1, "below": 4}, ([0], [3], [2])),
        Example({"kind": "plane", "dim": 1}, ([[[1, 2], [3, 4]]], [[[5, 6], [7, 8]]])),
    )
    Input: ClassVar[Any] = Numbers

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.kind: SignalKind = self.config.kind
        self.dim = self.config.dim

    def parse(self, raw: Any, where: str) -> Tensor:
        tensor: Tensor = super().parse(raw, where)
        self._check(tensor, where)
        return tensor

    def forward(self, inputs: Sequence[Tensor]) -> Signal:
        for tensor in inputs:
            self._check(tensor, self.config.kind)
        rows = [tensor[None] for tensor in inputs]
        if self.config.kind == "tokens":
            return cat_rows([Tokens(row) for row in rows])
        make = Vector if self.config.kind == "vector" else Plane
        if len({row.shape for row in rows}) > 1:
            raise InputError("signal-shape", "shapes differ within a batch", where=self.config.kind, fits="one shape")
        return make(torch.cat(rows))

    def _check(self, tensor: Tensor, where: str) -> None:
        axis = 0 if self.config.kind == "plane" else -1
        if tensor.ndim != _AXES[self.config.kind] or tensor.shape[axis] != self.dim or 0 in tensor.shape:
            fits = _SHAPES[self.config.kind].format(dim=self.dim)
            raise InputError("signal-shape", f"got shape {tuple(tensor.shape)}", where=where, fits=fits)
        below = self.config.below
        if below is not None and bool(((tensor != tensor.round()) | (tensor < 0) | (tensor >= below)).any()):
            what = f"{tensor.flatten().tolist()[:8]} names no row of a table"
            fits = f"whole numbers from 0 to {below - 1}"
            raise InputError("signal-row", what, where=where, fits=fits)
