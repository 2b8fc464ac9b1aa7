"""What an iterator makes, one by one, each made inside of a block of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

T = TypeVar("T")


def stepwise(made: Iterator[T], around: Callable[[], AbstractContextManager[None]]) -> Iterator[T]:
    """The same as `made`; `around` is entered while one is made, and left before it is handed on.

    Args:
        made: closed with this one where it can be.
    """
    end = object()
    try:
        while True:
            with around():
                one = next(made, end)
            if one is end:
                return
            yield one  # type: ignore[misc]
    finally:
        if hasattr(made, "close"):
            made.close()
