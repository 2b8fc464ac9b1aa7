"""Checks of the values that parts return (NaN, shapes, steps and noise levels), and of how they parse inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.extractor import Extractor
from ldmkit.contracts.step import Step
from ldmkit.contracts.value import Value
from ldmkit.errors import InputError, LdmkitError, PluginError, RunError, raised, shown
from ldmkit.files.numbers import plain
from ldmkit.plugins.catalogue import name_of


def finite(tensor: Tensor, stage: str) -> None:
    """Refuse NaN and infinities.

    Raises:
        RunError: `not-finite`, with the stage.
    """
    if not math.isfinite(float(tensor.detach().sum(dtype=torch.float64))):
        raise not_finite(stage)


def not_finite(stage: str) -> RunError:
    """The error for NaN or infinity in the output of a stage."""
    fits = "float32 or bfloat16 instead of float16, a lower guidance scale, or undamaged weights"
    return RunError("not-finite", "NaN or infinity in the output", where=stage, fits=fits)


def check_step(step: object, state: Tensor, sampler: Value) -> None:
    """Check that a sampler yielded a `Step` whose tensors match the state in shape, dtype and device.

    Raises:
        RunError: `bad-step`, with the sampler and its distribution.
    """
    if not isinstance(step, Step):
        raise _bad_step(sampler, f"yielded {type(step).__name__}", "an ldmkit.Step")
    if not isinstance(step.x, Tensor) or not isinstance(step.x0, Tensor):
        what = f"yielded a Step with {_described(step.x)} and {_described(step.x0)}"
        raise _bad_step(sampler, what, "tensors x and x0")
    if step.x.shape != state.shape or step.x.dtype != state.dtype or step.x.device != state.device:
        what = f"yielded {_described(step.x)} for a state {_described(state)}"
        raise _bad_step(sampler, what, "the state's shape, dtype and device")
    if step.x0.shape != state.shape:
        what = f"yielded an x0 of {_described(step.x0)} for a state {_described(state)}"
        raise _bad_step(sampler, what, "the state's shape")


def steps_of(made: object, sampler: Value) -> Iterator[Step]:
    """An iterator over the result of a sampler's `steps`.

    Raises:
        RunError: `bad-step`: it is not iterable.
    """
    if not isinstance(made, Iterable):
        raise _bad_step(sampler, f"returned {_described(made)} from steps", "a generator of Steps")
    return iter(made)


def check_returned(
    value: object, shapes: Sequence[Sequence[int]], kind: str, part: object, method: str = "__call__"
) -> Tensor:
    """Check that a part returned a floating-point tensor of one of the shapes; torch would silently broadcast others.

    Raises:
        RunError: `bad-return`, with the part and its distribution.
    """
    if isinstance(value, Tensor) and value.is_floating_point() and any(value.shape == tuple(s) for s in shapes):
        return value
    who, fits = part_name(kind, part), " or ".join(str(tuple(shape)) for shape in shapes)
    what = f"{who} breaks its contract: {method} returned {_described(value)}"
    raise RunError("bad-return", what, fits=f"a tensor of floats {fits}")


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{tuple(value.shape)} {value.dtype} on {value.device}"


def check_levels(made: object, grid: Value) -> list[float]:
    """The noise levels of a grid, checked.

    Raises:
        RunError: `bad-return`, with the grid: not numbers, or not strictly decreasing.
        InputError: `grid-range`: numbers outside the range in which float32 is accurate.
    """
    levels = list(made) if isinstance(made, (list, tuple)) else []
    sigmas = [float(level) for level in map(plain, levels) if isinstance(level, int | float)]
    falling = all(after < before for before, after in pairwise(sigmas))
    if len(sigmas) < 2 or len(sigmas) != len(levels) or not falling:
        what = f"{part_name('grid', grid)} breaks its contract: sigmas returned {shown(made)}"
        raise RunError("bad-return", what, fits="a strictly decreasing list of at least two floats")
    for i, sigma in enumerate(sigmas):
        if not (sigma == 0 or 1e-10 <= sigma <= 1e10):
            fits = "noise levels of 1e-10 to 1e10, or 0 at the end"
            raise InputError("grid-range", f"noise level {sigma!r}", where=f"grid[{i}]", fits=fits)
    return sigmas


def is_finite(state: Tensor) -> bool:
    """Whether a run's state contains neither NaN nor infinity; synchronises with the device."""
    total = float(state.sum())
    return total - total == 0.0


def check_end(step: Step | None, sigmas: Sequence[float], sampler: Value) -> None:
    """Refuse a run that ended before its last noise level, which would leave noise in the picture.

    Args:
        step: the last step; None if the sampler yielded none.

    Raises:
        RunError: `bad-step`, with the sampler and its distribution.
    """
    if step is None or not math.isclose(step.sigma_next, sigmas[-1]):
        where = "without a step" if step is None else f"at sigma {step.sigma_next:.4g}"
        fits = f"one step for each of {len(sigmas) - 1} transitions, ending at sigma {sigmas[-1]:.4g}"
        raise _bad_step(sampler, f"ended {where}", fits)


def _bad_step(sampler: Value, what: str, fits: str) -> RunError:
    return RunError("bad-step", f"{part_name('sampler', sampler)} breaks its contract: it {what}", fits=fits)


def part_name(kind: str, part: object) -> str:
    """A part for a message: its registered name and distribution, or its class if it is not registered."""
    try:
        entry = name_of(kind, type(part))
    except PluginError:
        return f"{kind} {type(part).__module__}:{type(part).__qualname__}"
    return f"{kind} {entry.name!r} of {entry.dist} {entry.version}"


def parsed_by(part: Conditioner | Extractor, name: Callable[[], str], raw: Any, where: str) -> Any:
    """A raw input, as a part parses it.

    Args:
        name: of the part, for errors.

    Raises:
        InputError: the part's own; `unreadable`: it raised an error of another kind.
    """
    try:
        return part.parse(raw, where)
    except LdmkitError:
        raise
    except Exception as problem:
        what = f"{name()} cannot read {shown(raw)}: {raised(problem)}"
        raise InputError("unreadable", what, where=where) from problem
