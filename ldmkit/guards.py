"""Guards around the stages of a run: NaN is named by stage and step, memory exhaustion by what failed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ldmkit.errors import RunError

_ALLOCATION = ("can't allocate memory", "not enough memory", "out of memory")


def finite(tensor: Tensor, stage: str) -> None:
    """Refuse NaN and infinities.

    Raises:
        RunError: `not-finite`, naming the stage.
    """
    if not math.isfinite(float(tensor.detach().sum(dtype=torch.float64))):
        raise not_finite(stage)


def not_finite(stage: str) -> RunError:
    """The error for NaN or infinity out of a stage."""
    fits = "float32 or bfloat16 instead of float16, a lower guidance scale, or undamaged weights"
    return RunError("not-finite", "NaN or infinity came out", where=stage, fits=fits)


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
