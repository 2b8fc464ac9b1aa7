"""Mappings that stay what they are."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Fixed(dict[K, V]):
    """A dictionary that refuses to be changed; `copy`, `dict(...)` and `|` make ordinary ones of it."""

    def __reduce__(self) -> Any:
        return type(self), (dict(self),)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        what = "what a pipeline is made of is fixed once it is made"
        raise TypeError(f"{what}; for one that differs: pipe.with_(...), pipe.with_adapter(...)")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse
