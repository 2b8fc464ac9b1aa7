"""Conversion of native tensors from and to a published layout.

The layout of a part is a `KeyMap`: native key -> Conversion. No other code knows both names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


def _only(*tensors: Tensor) -> Tensor:
    return tensors[0]


def _alone(tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor,)


@dataclass(frozen=True)
class Conversion:
    """One native tensor: the published keys it is read from, and the functions that convert it in both directions.

    `read` must also work on meta tensors, which are used to check shapes before any data is read.
    """

    keys: tuple[str, ...]
    read: Callable[..., Tensor] = _only
    write: Callable[[Tensor], tuple[Tensor, ...]] = _alone


KeyMap: TypeAlias = dict[str, Conversion]


def renamed(key: str) -> Conversion:
    """The same tensor under another key."""
    return Conversion((key,))


def layer(native: str, foreign: str, bias: bool = True) -> KeyMap:
    """Weight and bias of one layer under another name, unchanged."""
    return {f"{native}.{name}": renamed(f"{foreign}.{name}") for name in ("weight", "bias")[: 1 + bias]}


def layers(names: Mapping[str, str]) -> KeyMap:
    """Weights and biases of several layers, given as native name -> published name."""
    return {key: entry for native, foreign in names.items() for key, entry in layer(native, foreign).items()}


def as_linear(key: str) -> Conversion:
    """A native linear weight (out, in) published as a 1x1 convolution (out, in, 1[, 1]).

    Written with two trailing axes; `as_linear_1d` writes a Conv1d weight.
    """
    return Conversion((key,), lambda w: w.flatten(1), lambda w: (w[..., None, None],))


def as_linear_1d(key: str) -> Conversion:
    """A native linear weight (out, in) published as a Conv1d weight (out, in, 1)."""
    return Conversion((key,), lambda w: w.flatten(1), lambda w: (w[..., None],))


def stacked(keys: Sequence[str]) -> Conversion:
    """Published tensors of equal size, concatenated along the first axis (q, k, v -> qkv)."""
    names = tuple(keys)
    return Conversion(names, _cat, lambda w: w.chunk(len(names)))


def _cat(*parts: Tensor) -> Tensor:
    if not parts[0].is_meta:
        return torch.cat(parts)
    # torch.cat on meta tensors imports the compiler, which takes a second
    first = parts[0].shape[1:]
    if any(part.shape[1:] != first for part in parts):
        raise ValueError("tensors of different shapes cannot be stacked")
    return parts[0].new_empty((sum(part.shape[0] for part in parts), *first))


def prefixed(keymap: KeyMap, native: str = "", foreign: str = "") -> KeyMap:
    """The key map with prefixes added to native and published keys."""
    return {
        native + name: Conversion(tuple(foreign + key for key in entry.keys), entry.read, entry.write)
        for name, entry in keymap.items()
    }
