"""Tensors whose values cannot be read on the host, or that are on another device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class ValueRead(Exception):
    """A tensor value was read on the host."""


_METHODS = (
    "item",
    "tolist",
    "numpy",
    "cpu",
    "__bool__",
    "__float__",
    "__int__",
    "__index__",
    "__contains__",
    "nonzero",
)
_READERS: dict[Callable[..., Any], str] = {getattr(Tensor, name): f"Tensor.{name}" for name in _METHODS}
_READERS |= {
    torch.nonzero: "torch.nonzero",
    torch.equal: "torch.equal",
    torch.allclose: "torch.allclose",
    torch.is_nonzero: "torch.is_nonzero",
    torch.unique: "torch.unique",
    torch.masked_select: "torch.masked_select",
}


class Blind(Tensor):
    """A tensor whose values cannot be read on the host, like those of everything computed from it."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _READERS:
            raise ValueRead(f"{_READERS[func]} on a tensor of the run")
        if func is Tensor.__getitem__ and isinstance(args[1], Tensor) and args[1].dtype == torch.bool:
            raise ValueRead("a tensor of the run was indexed by a mask, so that the result's shape depends on values")
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


def blind(tensor: Tensor) -> Tensor:
    """The same tensor, with values that cannot be read on the host."""
    return tensor.as_subclass(Blind)


def other_device() -> torch.device:
    """An accelerator if there is one, else torch's meta device, on which mixing devices is an error too."""
    return torch.device("cuda" if torch.cuda.is_available() else "meta")
