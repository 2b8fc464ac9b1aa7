"""Freed memory that the C library keeps, given back to the system while a codec runs within a budget.

glibc serves blocks below its threshold (up to 32 MiB) from heaps that it does not shrink as long as something lies at
their end. Tiles make and free maps of ever other sizes, which then lie scattered in heaps twice as large as what is
held. `malloc_trim` returns their free pages and changes no setting of the process, as `mallopt` would. Other C
libraries and devices have no such call and are left as they are.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

SHARE = 8
"""Budget over the freed memory that may stay with the C library: less is slower, more is taken beyond the budget."""


class Heap:
    """Keeps what the process holds beyond its live tensors within a bound, for the length of one run.

    Args:
        given: what the run is given: on the CPU, or there is nothing to keep.
        budget: of the run, in bytes; `SHARE` of it is the bound.
    """

    def __init__(self, given: Tensor, budget: int) -> None:
        self._trim = trimmer() if given.device.type == "cpu" else None
        self._slack = budget // SHARE
        if self._trim is not None:
            self._trim(0)
            self._base = resident() - given.nbytes

    def settle(self, *held: Tensor | None) -> None:
        """Give freed memory back where there is more of it than the bound.

        Args:
            held: every live tensor of the run, each once.
        """
        if self._trim is None:
            return
        live = sum(tensor.nbytes for tensor in held if tensor is not None)
        if resident() - live - self._base > self._slack:
            self._trim(0)
            # what is still there is in use, by the libraries' own caches or by other threads
            self._base = max(self._base, resident() - live)


@cache
def trimmer() -> Callable[[int], Any] | None:
    """glibc's `malloc_trim`; None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        found: Callable[[int], Any] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
    return found if _STATM.exists() else None


def resident() -> int:
    """Resident memory of this process now, in bytes."""
    return int(_STATM.read_bytes().split()[1]) * mmap.PAGESIZE


_STATM = Path("/proc/self/statm")
