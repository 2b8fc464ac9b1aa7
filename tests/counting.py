"""Work by the number of calls, which is the same on every machine, where seconds are not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Calls:
    """How many functions were called, of Python and of C."""

    count = 0


@contextmanager
def calls_at_most(limit: int) -> Iterator[Calls]:
    """Fails as soon as this thread has called more functions than that: a loop without end is ended, too."""
    calls = Calls()

    def counted(frame: FrameType, event: str, argument: Any) -> None:
        calls.count += event in ("call", "c_call")
        if calls.count > limit:
            sys.setprofile(None)
            raise AssertionError(f"more than {limit:,} calls")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        yield calls
    finally:
        sys.setprofile(before)
