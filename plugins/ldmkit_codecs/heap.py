"""Returns freed memory that the C library keeps to the system, while a codec runs within a memory budget.

glibc serves blocks below its threshold (up to 32 MiB) from heaps that it does not shrink while their end is in use.
Tiles allocate and free maps of many different sizes, which leaves heaps twice as large as the memory in use.
`malloc_trim` returns the free pages without changing settings of the process, as `mallopt` would. Nothing is done for
other C libraries and devices, which have no such call.
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
"""Fraction of the budget that may stay with the C library as freed memory: less is slower, more exceeds the budget."""


class Heap:
    """Bounds the memory that the process holds beyond the live tensors of one run.

    Args:
        given: the input of the run; nothing is done unless it is on the CPU.
        budget: budget of the run, in bytes; the bound is this divided by `SHARE`.
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
