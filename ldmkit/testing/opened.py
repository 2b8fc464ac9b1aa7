"""Which files a piece of code opens."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_CODE = frozenset({".py", ".pyc", ".so", ".pyd", ".dll", ".dylib"})
"""Suffixes of files that imports open."""

_watching = threading.local()


@contextmanager
def files_opened() -> Iterator[list[str]]:
    """The files that this thread opens inside the `with` block, in order, except those that imports open."""
    _watch()
    found: list[str] = []
    _watching.found = found
    try:
        yield found
    finally:
        _watching.found = None


@cache
def _watch() -> None:
    """An audit hook, which stays for the life of the process; outside `files_opened` it returns at once."""
    sys.addaudithook(_note)


def _note(event: str, args: tuple[Any, ...]) -> None:
    if event != "open" or getattr(_watching, "found", None) is None:
        return
    path = args[0]
    if isinstance(path, (str, bytes)):
        text = path.decode(errors="replace") if isinstance(path, bytes) else path
        if Path(text).suffix not in _CODE:
            _watching.found.append(text)
