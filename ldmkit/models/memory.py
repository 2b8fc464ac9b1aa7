"""Errors for running out of memory while loading or running."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ldmkit.errors import RunError

_ALLOCATION = ("can't allocate memory", "not enough memory", "out of memory")


@contextmanager
def memory(stage: str, size: str) -> Iterator[None]:
    """Convert an allocation failure into an error with the stage, the size and a remedy.

    Raises:
        RunError: `out-of-memory`.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _exhausted(stage, size) from error
    except RuntimeError as error:
        if any(text in str(error).lower() for text in _ALLOCATION):
            raise _exhausted(stage, size) from error
        raise


def _exhausted(stage: str, size: str) -> RunError:
    helps = ("bfloat16",) if stage.startswith("loading") else ("fewer pictures at once", "a smaller size", "bfloat16")
    fits = ", ".join(helps) + (", or the tiled codec" if stage.startswith("codec") else "")
    return RunError("out-of-memory", f"not enough memory for {size}", where=stage, fits=fits)
