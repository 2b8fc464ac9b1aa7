"""Checks that the noise levels of a run suit the model's process; lists from other programs may mean something else."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ldmkit.contracts.process import Process
from ldmkit.errors import InputError, warn

ROUNDING = 1.01
"""Tolerance for published lists, which round the largest level up (14.7 for 14.61)."""

FAINT = 4.0
"""A first level below this, and below a quarter of the process's largest, gives a warning: with latents of standard
deviation 1, more than 6 % of the state's variance should be signal at that level, but pure noise contains none."""

LEFT = 0.05
"""Noise below this level is not visible in a picture."""

STEEPEST, MODEST, FEW = 13.0, 0.5, 5
"""With n >= FEW steps the last may start at STEEPEST / (n - 1) or MODEST, which covers flow models in use up to the
largest shift (12). Fewer steps are typical of distilled models, which take large steps by design."""


def check_range(levels: Sequence[float], process: Process, started: bool) -> None:
    """Refuse levels above those of the process, and warn if they start too low, jump to 0, or end too high.

    Args:
        levels: levels of the whole run, as returned by the grid.
        started: whether the run starts from a picture or latents.

    Raises:
        InputError: `grid-range`.
    """
    first, last = levels[0], levels[-1]
    seen = _timesteps(levels, process)
    if first > process.sigma_max * ROUNDING:
        fits = f"the model's noise levels, at most {process.sigma_max:.6g}" + (f"; {seen}" if seen else "")
        raise InputError("grid-range", f"noise level {first:.6g}", where="grid[0]", fits=fits)
    if seen:
        warn(f"{seen}; they are used as noise levels")
    if not started and first < min(FAINT, process.sigma_max / 4):
        what = f"the first noise level is {first:.4g}, but the model's largest is {process.sigma_max:.6g}"
        warn(f"{what}: starting from pure noise at such a low level gives pale or wrong pictures{_times(levels)}")
    if leftover(last, process):
        warn(f"the last noise level is {last:.4g}, so that much noise remains in the picture (end with 0 to remove it)")
    steps = len(levels) - 1
    if last == 0 and not seen and steps >= FEW and levels[-2] > max(STEEPEST / (steps - 1), MODEST):
        what = f"the last of {steps} steps goes directly from noise level {levels[-2]:.4g} to 0"
        warn(f"{what}, which blurs details that form below that level")


def leftover(last: float, process: Process) -> float:
    """The noise level that a run which ends at this one leaves in its latents; 0 where none is visible."""
    return last if last > max(2 * process.sigma_min, LEFT) else 0.0


def check_continued(levels: Sequence[float], held: float) -> None:
    """Refuse a run that does not begin at the noise level that its latents hold.

    Raises:
        InputError: `start-noised`.
    """
    if not math.isclose(levels[0], held, rel_tol=1e-6):
        what = f"its latents hold noise of level {held:.6g}, but the run begins at {levels[0]:.6g}"
        raise InputError("start-noised", what, where="start", fits=f"grid=[{held:.6g}, ..., 0], of strength 1")


def _timesteps(levels: Sequence[float], process: Process) -> str:
    """A message if the levels look like timesteps, otherwise "". Timesteps are integers whose smallest is too large to
    be the end of a list of noise levels."""
    above = [level for level in levels if level > 0]
    if len(above) < 2 or above[-1] < 2 or above[0] < 50 or any(level % 1 for level in above):
        return ""
    more = "" if process.timesteps is None else " (`pipe.process.sigma_of_time(t)` for each timestep)"
    listed = ", ".join(f"{level:g}" for level in levels[:3])
    return f"{listed} ... look like timesteps, but noise levels are expected{more}"


def _times(levels: Sequence[float]) -> str:
    """A hint if the levels look like times of a flow, which go from 1 to 0."""
    return "; the time t in [0, 1] of a flow is the noise level t / (1 - t)" if 0.9 <= levels[0] <= 1 else ""
