"""Warnings about arguments that require a gradient, because runs do not compute gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ldmkit.errors import warn

_DEEP = 4
"""Maximum nesting of mappings, lists and objects to search."""


def remark_gradients(given: Mapping[str, Any]) -> None:
    """Warn about tensors in a call's arguments that require a gradient, if gradients are enabled."""
    if not torch.is_grad_enabled():
        return
    found = next((path for name, value in given.items() for path in _asking(value, name, _DEEP)), None)
    if found is not None:
        what = f"{found} requires a gradient, but sampling, encoding and decoding run without gradients"
        warn(f"{what} (`conditioning(grad=True)` and direct calls of the parts have them)")


def _asking(value: Any, path: str, deep: int) -> Iterator[str]:
    if isinstance(value, Tensor):
        if value.requires_grad:
            yield path
    elif not deep or isinstance(value, (str, bytes, int, float, type(None))):
        return
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _asking(item, f"{path}.{key}", deep - 1)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _asking(item, f"{path}[{i}]", deep - 1)
    elif hasattr(value, "latents"):  # a Start, an Output
        yield from _asking({name: getattr(value, name, None) for name in ("latents", "image")}, path, deep - 1)
