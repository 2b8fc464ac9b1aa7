"""Grids over the integer timesteps of a discrete process."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from bisect import bisect_left
from functools import lru_cache
from typing import ClassVar, Literal

from pydantic import Field

from ldmkit import Arrivals, Example, Grid, InputError, Process
from ldmkit_samplers.grids.checks import check_sigmas, check_steps, total_timesteps

End = Literal["zero", "first"]
Intervals = Literal["steps", "steps+1"]
Strides = Literal["any", "whole"]


class TimestepGrid(Grid):
    """A rule for timesteps, and for the end of the run.

    Args:
        end: "zero" ends at sigma 0; "first" at the sigma of timestep 0 (alpha_bar_0), as the original DDIM does. If
            timestep 0 is itself in the grid, the run ends on it: `steps` noise levels, one transition fewer.
        strides: "whole": every step goes down by T // steps timesteps, or to the `end` if that is below 0, wherever the
            next timestep is, as in diffusers' DDIM and PNDM. If steps do not arrive at the next noise level,
            `arrivals` says where they do, and the levels end at 0.
    """

    name: ClassVar[str]
    end: End = "zero"
    strides: Strides = "any"

    @abstractmethod
    def timesteps(self, total: int, steps: int) -> list[float]:
        """Decreasing timesteps in 0 ... total-1, before any check."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        """Raises InputError: fewer than one step, more than there are timesteps, a timestep twice or out of range."""
        total = total_timesteps(process, self.name)
        times = self._checked(total, check_steps(steps))
        levels = [self.level(process, t) for t in times]
        if self.strides == "whole":
            levels.append(self._below(process, times[-1] - total // steps) if self._even(times, total, steps) else 0.0)
        elif self.end == "first" and times[-1] > 0:
            levels.append(process.sigma_of_time(0))
        elif self.end == "zero":
            levels.append(0.0)
        return check_sigmas(levels, f"grid {self.name}")

    def arrivals(self, process: Process, steps: int) -> Arrivals | None:
        """The levels T // steps timesteps below each; None if those are the levels of the grid."""
        total = total_timesteps(process, self.name)
        times = self._checked(total, check_steps(steps))
        stride = total // steps
        if self.strides == "any" or self._even(times, total, steps):
            return None
        origins = [process.sigma_of_time(min(t + stride, total - 1)) for t in times[1:]]
        levels = [self._below(process, t - stride) for t in times]
        return Arrivals(tuple(levels), (*origins, self.level(process, times[-1])))

    def _below(self, process: Process, time: float) -> float:
        """The level that a step of a whole stride ends at."""
        if time >= 0:
            return self.level(process, time)
        return 0.0 if self.end == "zero" else process.sigma_of_time(0)

    def level(self, process: Process, time: float) -> float:
        """The noise level of a timestep."""
        return process.sigma_of_time(time)

    def _checked(self, total: int, steps: int) -> list[float]:
        times = self.timesteps(total, steps) if steps <= total else []
        if self.end == "first" and times == [0.0] and self.strides == "any":
            what = f"with {steps} step this grid starts where it ends, at timestep 0"
            raise InputError("no-transition", what, where=f"grid {self.name}", fits=self._fits(total, steps))
        if not self._valid(times, total):
            what = f"{steps} steps do not fit into {total} timesteps"
            raise InputError("too-many-steps", what, where=f"grid {self.name}", fits=self._fits(total, steps))
        return times

    def _even(self, times: list[float], total: int, steps: int) -> bool:
        """Whether whole strides go from level to level, and the last of several one further."""
        stride = total // steps
        further = self.end == "zero" or (times[-1] > 0 and steps > 1)
        return further and all(a - b == stride for a, b in itertools.pairwise(times))

    def _valid(self, times: list[float], total: int) -> bool:
        if self.end == "first" and times == [0.0] and self.strides == "any":
            return False  # a run that starts where it ends
        falling = all(a > b for a, b in itertools.pairwise(times))
        return bool(times) and falling and times[0] <= total - 1 and times[-1] >= 0

    def _fits(self, total: int, steps: int) -> str | None:
        """The nearest counts on both sides that work."""
        counts = _working(self, total)
        place = bisect_left(counts, steps)
        found = [str(n) for n in (*counts[max(place - 1, 0) : place], *counts[place : place + 1])]
        return " or ".join(found) + " steps" if found else None


@lru_cache(maxsize=32)
def _working(grid: TimestepGrid, total: int) -> tuple[int, ...]:
    """Numbers of steps for which a grid has timesteps; cached, since finding them takes longer than making a grid."""
    found = ((n, grid.timesteps(total, n)) for n in range(1, total + 1))
    return tuple(n for n, times in found if grid._valid(times, total))


class Leading(TimestepGrid):
    """0, c, 2c, ... with c = T // steps, plus `offset`.

    Args:
        offset: added to every timestep (Stable Diffusion's files say 1).
        intervals: "steps+1" uses c = T // (steps + 1) and drops the smallest, as diffusers' multistep solvers do.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"offset": 1, "end": "first"}),
        Example({"intervals": "steps+1"}),
    )
    name: ClassVar[str] = "leading"
    offset: int = Field(default=0, ge=0)
    intervals: Intervals = "steps"

    def timesteps(self, total: int, steps: int) -> list[float]:
        extra = 1 if self.intervals == "steps+1" else 0
        stride = total // (steps + extra)
        return [float(i * stride + self.offset) for i in reversed(range(extra, steps + extra))]


class Trailing(TimestepGrid):
    """T - 1, then down by T / steps, rounded half to even (Lin et al. 2023, table 2): starts at the noisiest.

    Args:
        out_of: choose, as evenly as possible, among this many timesteps, T // out_of apart, on which a consistency
            model was distilled (Luo et al. 2023); the maximum number of steps.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"end": "first"}), Example({"out_of": 50}))
    name: ClassVar[str] = "trailing"
    out_of: int | None = Field(default=None, ge=1)

    def timesteps(self, total: int, steps: int) -> list[float]:
        if self.out_of is not None:
            if steps > self.out_of or self.out_of > total:
                return []
            skipped = (math.floor(i * (self.out_of / steps)) for i in range(steps))
            return [float((self.out_of - i) * (total // self.out_of) - 1) for i in skipped]
        stride = (total - total / steps) - total  # rounded like this, halves fall to the side they fall to in numpy
        return [float(round(total + i * stride) - 1) for i in range(steps)]


class Linspace(TimestepGrid):
    """Equally spaced from T - 1 down to 0, both included.

    Args:
        intervals: "steps+1" makes steps + 1 values and drops the 0, as multistep solvers in diffusers do.
        endpoint: False divides the range down to 0 into `steps` and excludes 0; with rounding "floor" this is the
            rule of the published SDXL code.
        rounding: to integers half to even, downwards, or not at all.
        between: how sigma is interpolated at timesteps that are not rounded: linearly in log sigma or in sigma.
        alone: the timestep of a single step: the noisiest, or 0, as in diffusers.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"intervals": "steps+1"}),
        Example({"endpoint": False, "rounding": "floor", "end": "first"}),
        Example({"rounding": "none"}),
    )
    name: ClassVar[str] = "linspace"
    intervals: Intervals = "steps"
    endpoint: bool = True
    rounding: Literal["nearest", "floor", "none"] = "nearest"
    between: Literal["log", "sigma"] = "log"
    alone: Literal["last", "first"] = "last"

    def level(self, process: Process, time: float) -> float:
        below = math.floor(time)
        if self.between == "log" or below == time:
            return process.sigma_of_time(time)
        low, high = process.sigma_of_time(below), process.sigma_of_time(below + 1)
        return low + (time - below) * (high - low)

    def timesteps(self, total: int, steps: int) -> list[float]:
        if steps == 1 and self.alone == "first":
            return [0.0]
        gaps = steps - 1 if self.intervals == "steps" and self.endpoint else steps
        stride, top = (total - 1) / max(gaps, 1), float(total - 1)
        if self.endpoint:
            exact = [top, *(stride * (gaps - i) for i in range(1, steps))]
        else:
            exact = [top - stride * i for i in range(steps)]
        if self.rounding == "none":
            return exact
        return [float(round(t) if self.rounding == "nearest" else math.floor(t)) for t in exact]


class LdmDdim(TimestepGrid):
    """The timesteps of the original latent-diffusion DDIM and PLMS: 1, 1 + c, 1 + 2c ..., ending at alpha_bar_0.

    Args:
        method: "uniform", or "quad": squares of equally spaced numbers up to sqrt(0.8 T), plus 1.
        count: "exact" gives as many steps as asked for: timesteps floor(i T / steps) + 1, equal to the published rule
            wherever that gives as many. "published" is range(0, T, T // steps) + 1, which makes
            ceil(T / (T // steps)) steps: 31 for 30, 500 for 400.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(vary={"count": ("exact",)}),  # "published" is one step more or less, for its pictures
        Example({"method": "quad"}),
    )
    name: ClassVar[str] = "ldm-ddim"
    end: End = "first"
    method: Literal["uniform", "quad"] = "uniform"
    count: Literal["exact", "published"] = "exact"

    def timesteps(self, total: int, steps: int) -> list[float]:
        if self.method == "quad":
            root = math.sqrt(total * 0.8)
            roots = [root * (i / (steps - 1)) if steps > 1 else 0.0 for i in range(steps)]
            rising = [int(r * r) + 1 for r in roots]
        elif self.count == "exact":
            rising = [i * total // steps + 1 for i in range(steps)]
        else:
            rising = [t + 1 for t in range(0, total, total // steps)]
        return [float(t) for t in reversed(rising)]
