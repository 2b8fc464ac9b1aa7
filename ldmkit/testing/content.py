"""Values as plain data that can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel
from torch import Tensor


def content(value: Any) -> Any:
    """A value as plain data that can be compared: tensors and arrays by their numbers, models by their fields."""
    if isinstance(value, BaseModel):
        return type(value).__name__, {name: content(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().cpu().tolist()
    if isinstance(value, (np.ndarray, np.generic)):
        return str(value.dtype), tuple(value.shape), value.tobytes()
    if isinstance(value, Mapping):
        return {key: content(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [content(item) for item in value]
    return value
