"""Guards around the stages of a run: NaN is named by stage and step, memory exhaustion by what failed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ldmkit.errors import InputError, PluginError, RunError
from ldmkit.plugins import name_of
from ldmkit.runs import Step
from ldmkit.value import Value

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


def check_step(step: object, state: Tensor, sampler: Value) -> None:
    """Refuse what a sampler yields that is no `Step`, or whose tensors are not like the state that it was given.

    Raises:
        RunError: `bad-step`, naming the sampler and its distribution.
    """
    if not isinstance(step, Step):
        raise _bad_step(sampler, f"yielded {type(step).__name__}", "an ldmkit.Step")
    if step.x.shape != state.shape or step.x.dtype != state.dtype or step.x.device != state.device:
        got, wanted = (f"{tuple(t.shape)} {t.dtype} on {t.device}" for t in (step.x, state))
        raise _bad_step(sampler, f"yielded {got} for a state {wanted}", "shape, dtype and device kept")


def check_levels(sigmas: Sequence[float]) -> None:
    """Refuse noise levels that no float32 can carry through a run.

    Raises:
        InputError: `grid-range`.
    """
    for i, sigma in enumerate(sigmas):
        if not (sigma == 0 or 1e-10 <= sigma <= 1e10):
            fits = "noise levels of 1e-10 to 1e10, or 0 at the end"
            raise InputError("grid-range", f"noise level {sigma!r}", where=f"grid[{i}]", fits=fits)


def is_finite(state: Tensor) -> bool:
    """Whether a run's state holds neither NaN nor infinity; waits for the device."""
    total = float(state.sum())
    return total - total == 0.0


def check_end(step: Step | None, sigmas: Sequence[float], sampler: Value) -> None:
    """Refuse a run that ended before the last of its noise levels: what it leaves is a noisy picture.

    Args:
        step: the last one; None: the sampler yielded none.

    Raises:
        RunError: `bad-step`, naming the sampler and its distribution.
    """
    if step is None or not math.isclose(step.sigma_next, sigmas[-1]):
        where = "without a step" if step is None else f"at sigma {step.sigma_next:.4g}"
        fits = f"one step for each of {len(sigmas) - 1} transitions, to sigma {sigmas[-1]:.4g}"
        raise _bad_step(sampler, f"ended {where}", fits)


def _bad_step(sampler: Value, what: str, fits: str) -> RunError:
    try:
        entry = name_of("sampler", type(sampler))
        who = f"sampler {entry.name!r} of {entry.dist} {entry.version}"
    except PluginError:  # a class that nobody registered
        who = f"sampler {type(sampler).__module__}:{type(sampler).__qualname__}"
    return RunError("bad-step", f"{who} breaks its contract: it {what}", fits=fits)


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
