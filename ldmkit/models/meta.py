"""Building modules on the meta device, without memory and without running initialisers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FILLS = frozenset(
    {
        *(Tensor.normal_, Tensor.uniform_, Tensor.zero_, Tensor.fill_, Tensor.random_, Tensor.bernoulli_),
        *(Tensor.exponential_, Tensor.geometric_, Tensor.cauchy_, Tensor.log_normal_),
    }
)
_DRAWS: dict[Any, Callable[..., Tensor]] = {
    torch.randn: torch.empty,
    torch.rand: torch.empty,
    torch.randn_like: torch.empty_like,
    torch.rand_like: torch.empty_like,
}
"""Functions that create random tensors -> functions that create empty ones."""


@contextmanager
def on_meta() -> Iterator[None]:
    """Create new tensors on the meta device inside the block, and skip filling them.

    A random fill of a meta tensor has no effect, but makes torch import its compiler, which takes seconds.
    """
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Skips initialisers of meta tensors, and replaces random tensors on the meta device by empty ones."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _FILLS or getattr(func, "__module__", None) == "torch.nn.init":
            tensor = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        if func in _DRAWS and torch.device((kwargs or {}).get("device") or "meta").type == "meta":
            return _DRAWS[func](*args, **{key: value for key, value in (kwargs or {}).items() if key != "generator"})
        return func(*args, **(kwargs or {}))
