"""Digests of what samples hold, independent of where and when it was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def sample_bytes(inputs: Mapping[str, Any], image: np.ndarray[Any, Any]) -> tuple[bytes, bytes]:
    """A decoded sample as bytes that are the same for the same sample: of its inputs, and of its picture."""
    return stable_bytes(inputs), f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes()


def stable_bytes(value: Any) -> bytes:
    """Inputs as bytes that are the same for the same inputs."""
    return json.dumps(value, sort_keys=True, default=_plain).encode()


def framed(data: bytes) -> bytes:
    """With its length before it, so that it cannot pass for its neighbour's share."""
    return f"{len(data)}:".encode() + data


def _plain(value: Any) -> str:
    """Arrays and pictures by their content; of other objects the type, since an address would differ each time."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return type(value).__qualname__
    if array.dtype.hasobject:
        return type(value).__qualname__
    return f"{array.dtype} {array.shape} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"
