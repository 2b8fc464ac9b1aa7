"""Tensors that are not where, or what, a host expects: their numbers cannot be read, or they are on another device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Looked(Exception):
    """A number of a tensor was read on the host."""


_READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "__contains__", "nonzero")
_LOOKS: dict[Callable[..., Any], str] = {getattr(Tensor, name): f"Tensor.{name}" for name in _READS}
_LOOKS |= {
    torch.nonzero: "torch.nonzero",
    torch.equal: "torch.equal",
    torch.allclose: "torch.allclose",
    torch.is_nonzero: "torch.is_nonzero",
    torch.unique: "torch.unique",
    torch.masked_select: "torch.masked_select",
}


class Blind(Tensor):
    """A tensor that refuses to be read on the host; so does all that is computed from it."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _LOOKS:
            raise Looked(f"{_LOOKS[func]} on a tensor of the run")
        if func is Tensor.__getitem__ and isinstance(args[1], Tensor) and args[1].dtype == torch.bool:
            raise Looked("a tensor of the run was indexed by a mask, so that its shape depends on numbers")
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


def blind(tensor: Tensor) -> Tensor:
    """The same tensor, not to be looked at."""
    return tensor.as_subclass(Blind)


def other_device() -> torch.device:
    """An accelerator where there is one; torch's meta device otherwise, on which mixing devices is an error as well."""
    return torch.device("cuda" if torch.cuda.is_available() else "meta")
