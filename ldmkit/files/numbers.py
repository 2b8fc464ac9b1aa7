"""Conversion of numpy and torch numbers to Python's, without importing either."""

from __future__ import annotations

from typing import Any


def plain(value: Any, depth: int = 32) -> Any:
    """Numpy and torch scalars and zero-dimensional arrays and tensors as Python numbers, also inside dicts, lists and
    tuples; anything else is returned unchanged.

    Args:
        depth: maximum nesting to descend into; validation later refuses a container that contains itself.
    """
    if depth and type(value) is dict:
        return {key: plain(item, depth - 1) for key, item in value.items()}
    if depth and type(value) in (list, tuple):
        return type(value)(plain(item, depth - 1) for item in value)
    if getattr(value, "ndim", None) != 0 or getattr(getattr(value, "dtype", None), "kind", "f") not in "biuf":
        return value
    try:
        number = value.item()
    except (AttributeError, TypeError, ValueError, RuntimeError):  # a meta tensor has no data
        return value
    return number if isinstance(number, (bool, int, float)) else value


def listed(value: Any) -> Any:
    """A one-dimensional array or tensor as a list of Python numbers; anything else as by `plain`."""
    if getattr(value, "ndim", None) != 1 or not hasattr(value, "tolist"):
        return plain(value)
    try:
        return value.tolist()
    except (TypeError, ValueError, RuntimeError, NotImplementedError):  # a meta tensor
        return value
