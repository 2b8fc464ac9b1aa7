"""Copies of what callers hand in: a loop that fills its buffer again changes no call that was made before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel
from torch import Tensor


def owned_rows(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of parsed inputs in memory of their own; one that stands in many places is copied once."""
    made: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        if id(row) not in made:
            made[id(row)] = {key: owned(value) for key, value in row.items()}
    return [made[id(row)] for row in rows]


def owned(value: Any) -> Any:
    """A value with its tensors, arrays and pictures copied, inside containers and pydantic models too; objects of
    other classes are as they were."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, (np.ndarray, Image.Image)):
        return value.copy()
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: owned(getattr(value, name)) for name in type(value).model_fields})
    if type(value) is dict:
        return {key: owned(item) for key, item in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(owned(item) for item in value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(owned(item) for item in value))
    return value
