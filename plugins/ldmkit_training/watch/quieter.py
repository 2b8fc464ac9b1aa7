"""Limits repeated warnings in a long run."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SHOWN = 3
"""Number of warnings of one kind that are shown."""


@contextmanager
def few_warnings(say: Callable[[str], None]) -> Iterator[None]:
    """Show the first few warnings from each line of code; count the rest, and report the number at the end."""
    shown = warnings.showwarning
    met: Counter[tuple[str, int]] = Counter()

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: Any) -> None:
        met[filename, lineno] += 1
        if met[filename, lineno] <= SHOWN:
            shown(message, category, filename, lineno, *more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown
        if left := sum(max(0, count - SHOWN) for count in met.values()):
            say(f"{left} more warnings like these were not shown")
