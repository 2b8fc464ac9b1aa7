"""Checks shared by all grids."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ldmkit import CompositionError, InputError, Process, integer, shown
from ldmkit.bounds import MAX_STEPS


def check_steps(steps: int) -> int:
    """Raises InputError unless `steps` is an integer of 1 to `MAX_STEPS`."""
    number = integer(steps)
    if number is None or not 1 <= number <= MAX_STEPS:
        fits = f"an integer of 1 to {MAX_STEPS}"
        raise InputError("steps", f"{shown(steps)} is not a number of steps", where="steps", fits=fits)
    return number


def check_sigmas(sigmas: Sequence[float], where: str, fits: str | None = None) -> list[float]:
    """The noise levels as a list, strictly decreasing, finite, at least two, only the last may be 0.

    Raises:
        InputError: naming the first pair that does not decrease.
    """
    values = [float(s) for s in sigmas]
    if len(values) < 2:
        raise InputError("grid-length", f"{len(values)} noise levels make no step", where=where, fits="at least 2")
    if not all(math.isfinite(s) and s >= 0 for s in values):
        raise InputError("grid-values", "a noise level is negative or not finite", where=where)
    for i in range(1, len(values)):
        if values[i] >= values[i - 1]:
            what = f"noise levels must decrease, but {values[i - 1]:.6g} is followed by {values[i]:.6g}"
            raise InputError("grid-order", what, where=f"{where}[{i}]", fits=fits)
    return values


def total_timesteps(process: Process, grid: str) -> int:
    """T of a process with a table of timesteps.

    Raises:
        CompositionError: its time is continuous.
    """
    if process.timesteps is None:
        what = f"grid {grid!r} visits integer timesteps, {type(process).__name__} has none"
        raise CompositionError(
            "grid-process", what, fits="a grid over sigmas: karras, exponential, log-snr, flow-shift"
        )
    return process.timesteps
