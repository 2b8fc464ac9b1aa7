"""Digests of weights, which detect the change of a single bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def digest_of(state: Mapping[str, Tensor]) -> str:
    """16 hex digits that change with any name, shape, dtype or bit of a state dict."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        hashed.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hashed.update(bits(tensor))
    return hashed.hexdigest()[:16]


def bits(tensor: Tensor) -> memoryview | bytes:
    """A tensor's bytes in row-major order, whatever its device and strides."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""
