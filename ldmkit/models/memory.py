"""Memory that runs out, in loading and in a run: an error says for what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ldmkit.errors import RunError

_ALLOCATION = ("can't allocate memory", "not enough memory", "out of memory")


@contextmanager
def memory(stage: str, size: str) -> Iterator[None]:
    """Turn an allocation failure into an error that says which stage, how large, and what helps.

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
