"""Random inputs for modules, and how the kit compares their outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldmkit.contracts.part import Part
from ldmkit.testing.checks import expect, fail
from ldmkit.testing.tensors import expect_close, expect_equal

CLOSE = 1e-4
"""Tolerance relative to the largest value, for outputs whose sums may be reordered (float32 rounds at 1e-7)."""


def normal(*shape: int, like: Part | None = None, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same at every call, with a part's dtype and device if one is given."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values if like is None else values.to(like.device, like.dtype)


def leaves(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, tuples and lists, each with its path."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(data, tuple) and hasattr(data, "_fields"):
        for key, value in zip(data._fields, data, strict=True):
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(data, (tuple, list)):
        for index, value in enumerate(data):
            yield from leaves(value, f"{path}[{index}]")
    else:
        yield path, data


def rows_of(data: Any, rows: Sequence[int]) -> Any:
    """The same inputs for some of the samples: indexes tensors and lists, and recurses into other containers."""
    if isinstance(data, Tensor):
        return data[list(rows)]
    if isinstance(data, list):
        return [data[row] for row in rows]
    if isinstance(data, Mapping):
        return {key: rows_of(value, rows) for key, value in data.items()}
    if isinstance(data, tuple):
        items = [rows_of(value, rows) for value in data]
        return type(data)(*items) if hasattr(data, "_fields") else tuple(items)
    return data


def close(found: Sequence[Tensor], wanted: Sequence[Tensor], what: str, bound: float = CLOSE) -> None:
    """Fail unless outputs agree within `bound` of the largest value."""
    expect(len(found) == len(wanted), f"{what}: {len(wanted)} output(s)", f"{len(found)}")
    for a, b in zip(found, wanted, strict=True):
        largest = float(b.abs().max()) if b.numel() else 0.0
        expect_close(a, b, what, bound * max(largest, 1e-6))


def same(found: Sequence[Tensor], wanted: Sequence[Tensor], what: str) -> None:
    """Fail unless outputs are the same bit for bit."""
    expect(len(found) == len(wanted), f"{what}: {len(wanted)} output(s)", f"{len(found)}")
    for a, b in zip(found, wanted, strict=True):
        expect_equal(a, b, what)


def differ(found: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Whether outputs differ by more than rounding errors."""
    for a, b in zip(found, other, strict=True):
        if a.shape != b.shape or not bool(((a - b).abs().max() <= 1e-6 * b.abs().max()).item()):
            return True
    return False


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of its state dict."""
    return {key: tensor.detach().clone() for key, tensor in module.state_dict().items()}


def expect_state(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    """Fail unless two state dicts have the same keys in the same order, and the same tensors, bit for bit."""
    expect_keys(found, wanted, what)
    for key, tensor in wanted.items():
        expect_equal(found[key], tensor, f"{what}: {key!r}")


def expect_keys(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    """Fail unless two state dicts have the same keys in the same order, and the same shapes."""
    if list(found) != list(wanted):
        lost, new = [k for k in wanted if k not in found], [k for k in found if k not in wanted]
        fail(f"{what}: the same state-dict keys", f"missing {lost[:4]}, new {new[:4]}, or a different order")
    for key, tensor in wanted.items():
        if found[key].shape != tensor.shape:
            fail(f"{what}: {key!r} of shape {tuple(tensor.shape)}", f"{tuple(found[key].shape)}")
