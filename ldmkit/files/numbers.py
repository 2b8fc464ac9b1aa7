"""Numbers of numpy and torch as Python's own. Free of both."""

from __future__ import annotations

from typing import Any


def plain(value: Any, depth: int = 32) -> Any:
    """Numbers of numpy and torch (scalars, arrays and tensors without axes) as Python's own, inside mappings, lists
    and tuples too; anything else as it is.

    Args:
        depth: of containers that are looked into: one that holds itself has no end, and validation refuses it.
    """
    if depth and type(value) is dict:
        return {key: plain(item, depth - 1) for key, item in value.items()}
    if depth and type(value) in (list, tuple):
        return type(value)(plain(item, depth - 1) for item in value)
    if getattr(value, "ndim", None) != 0 or getattr(getattr(value, "dtype", None), "kind", "f") not in "biuf":
        return value
    try:
        number = value.item()
    except (AttributeError, TypeError, ValueError, RuntimeError):  # a meta tensor holds none
        return value
    return number if isinstance(number, (bool, int, float)) else value


def listed(value: Any) -> Any:
    """An array or tensor with one axis as a list of Python's numbers; anything else as `plain` has it."""
    if getattr(value, "ndim", None) != 1 or not hasattr(value, "tolist"):
        return plain(value)
    try:
        return value.tolist()
    except (TypeError, ValueError, RuntimeError, NotImplementedError):  # a meta tensor
        return value
