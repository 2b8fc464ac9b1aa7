"""Tensors that a module has under several names: tied weights, which stay tied when they are filled."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from ldmkit.errors import WeightsError


def tied_names(module: nn.Module) -> list[list[str]]:
    """Names of parameters and buffers that are one tensor, those of each together."""
    found: dict[int, list[str]] = {}
    parameters, buffers = module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
    for name, tensor in chain(parameters, buffers):
        found.setdefault(id(tensor), []).append(name)
    return [names for names in found.values() if len(names) > 1]


def check_tied(tied: Sequence[Sequence[str]], filled: dict[str, Tensor], where: str) -> None:
    """Have names that are one tensor filled with one; `filled` is changed.

    Raises:
        WeightsError: `tied`: the file has different numbers for them.
    """
    for names in tied:
        first, *others = [name for name in names if name in filled] or [""]
        for name in others:
            if not _equal(filled[first], filled[name]):
                off = float((filled[first].double() - filled[name].double()).abs().max())
                what = f"{first!r} and {name!r} are one tensor in the module, and differ by up to {off:.3g} in the file"
                fits = "a file whose copies are equal, or a part that does not tie them"
                raise WeightsError("tied", what, where=where, fits=fits)
            filled[name] = filled[first]


def tie(module: nn.Module, tied: Sequence[Sequence[str]]) -> None:
    """Make these names one tensor again, that of the first which has numbers."""
    for names in tied:
        tensors = [_table(module, name)[name.rpartition(".")[2]] for name in names]
        whole = next((tensor for tensor in tensors if tensor is not None and not tensor.is_meta), tensors[0])
        for name in names:
            _table(module, name)[name.rpartition(".")[2]] = whole


def _table(module: nn.Module, name: str) -> dict[str, Tensor | None]:
    owner, _, leaf = name.rpartition(".")
    holder = module.get_submodule(owner)
    return holder._parameters if leaf in holder._parameters else holder._buffers  # type: ignore[return-value]


def _equal(one: Tensor, other: Tensor) -> bool:
    """Bit by bit, so that NaN equals itself."""
    bits = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return one.dtype == other.dtype and torch.equal(*bits)
