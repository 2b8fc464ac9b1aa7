"""Whether the noise levels of a run are those of the model's process: other programs' lists mean other things."""

from __future__ import annotations

from collections.abc import Sequence

from ldmkit.contracts.process import Process
from ldmkit.errors import InputError, warn

ROUNDING = 1.01
"""Published lists round the largest level up, as 14.7 for 14.61."""

FAINT = 4.0
"""A first level below this, and below a quarter of the process's largest, draws a remark: with latents of standard
deviation 1, more than 6 % of the state's variance should be picture there, and there is none."""

LEFT = 0.05
"""Noise of a lower level is not seen in a picture."""

STEEPEST, MODEST, FEW = 13.0, 0.5, 5
"""Of n >= FEW steps the last may start at STEEPEST / (n - 1), or at MODEST: what flows in use with the largest shift
(12) do. Fewer steps are those of distilled models, which jump by design."""


def check_range(levels: Sequence[float], process: Process, started: bool) -> None:
    """Refuse levels above those of the process, and warn of those that begin too low, jump or end too high.

    Args:
        levels: of the whole run, as the grid made them.
        started: the run starts from a picture or latents.

    Raises:
        InputError: `grid-range`.
    """
    first, last = levels[0], levels[-1]
    seen = _timesteps(levels, process)
    if first > process.sigma_max * ROUNDING:
        fits = f"the model's own, of {process.sigma_max:.6g} or less" + (f"; {seen}" if seen else "")
        raise InputError("grid-range", f"noise level {first:.6g}", where="grid[0]", fits=fits)
    if seen:
        warn(f"{seen}: they are read as noise levels")
    if not started and first < min(FAINT, process.sigma_max / 4):
        what = f"the first noise level is {first:.4g}, the model's largest {process.sigma_max:.6g}"
        warn(f"{what}: a run from pure noise that begins so low comes out pale or wrong{_times(levels)}")
    if last > max(2 * process.sigma_min, LEFT):
        warn(f"the last noise level is {last:.4g}: as much noise stays in the picture (0 at the end takes it all out)")
    steps = len(levels) - 1
    if last == 0 and not seen and steps >= FEW and levels[-2] > max(STEEPEST / (steps - 1), MODEST):
        what = f"the last of {steps} steps goes from noise level {levels[-2]:.4g} to 0 at once"
        warn(f"{what}: what forms below it comes out blurred")


def _timesteps(levels: Sequence[float], process: Process) -> str:
    """What is to be said of levels that look like timesteps; '' where they do not: whole numbers, of which the
    least is so large that a list of noise levels would not stop there."""
    above = [level for level in levels if level > 0]
    if len(above) < 2 or above[-1] < 2 or above[0] < 50 or any(level % 1 for level in above):
        return ""
    more = "" if process.timesteps is None else ", `pipe.process.sigma_of_time(t)` of each"
    listed = ", ".join(f"{level:g}" for level in levels[:3])
    return f"{listed} ... look like timesteps, where noise levels are wanted{more}"


def _times(levels: Sequence[float]) -> str:
    """A hint where the levels look like a flow's times, which run from 1 to 0."""
    return "; a flow's time t in [0, 1] is the noise level t / (1 - t)" if 0.9 <= levels[0] <= 1 else ""
