"""For each check of grids, grids that break its promise, each in one way."""

from __future__ import annotations

import math
import random
from typing import Any

import torch

from ldmkit import CompositionError, Grid, InputError, Process


class Halving(Grid):
    """A correct one: every level is the same share of the one before."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError("steps", f"{steps!r} is no number of steps", fits="1 or more")
        ratio = (process.sigma_min / process.sigma_max) ** (1 / steps)
        return [process.sigma_max * ratio**i for i in range(steps)] + [0.0]


class Timesteps(Grid):
    """Another correct one: for tables only, and not for every number of steps."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        if process.timesteps is None:
            raise CompositionError("grid-process", "this grid needs timesteps", fits="a discrete process")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError("steps", f"{steps!r} is no number of steps", fits="1 or more")
        if steps % 2:
            raise InputError("odd", f"{steps} is odd", fits=f"{steps + 1} steps")
        times = [process.timesteps - 1 - i * (process.timesteps // steps) for i in range(steps)]
        return [*(process.sigma_of_time(t) for t in times), 0.0]


class Fixed(Grid):
    """A third: its own number of steps."""

    @property
    def own_steps(self) -> int:
        return 2

    def sigmas(self, process: Process, steps: int) -> list[float]:
        if steps != 2 or isinstance(steps, bool):
            raise InputError("steps", "this grid has two steps", fits="2")
        return [4.0, 2.0, 0.0]


class NoZero(Halving):
    """One level short."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        return super().sigmas(process, steps)[:-1]


class AsTuple(Halving):
    """A tuple for a list."""

    def sigmas(self, process: Process, steps: int) -> Any:
        return tuple(super().sigmas(process, steps))


class NeverFits(Halving):
    """Refuses nearly everything, politely."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        if steps != 10:
            raise InputError("steps", "only 10 steps", fits="10")
        return super().sigmas(process, steps)


class Curt(Halving):
    """Refuses without saying what would fit."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        if steps == 7:
            raise InputError("seven", "not seven")
        return super().sigmas(process, steps)


class Crashes(Halving):
    """Divides by zero at one step."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        if steps == 1:
            raise ZeroDivisionError("division by zero")
        return super().sigmas(process, steps)


class LastTwice(Halving):
    """The smallest level stands twice where there are many."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        found = super().sigmas(process, steps)
        return [*found[:-2], found[-3], 0.0] if steps > 15 else found


class Rises(Halving):
    """From small to large."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        return super().sigmas(process, steps)[::-1]


class NotANumber(Halving):
    """A level that is NaN; comparisons with it are all false."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        return [math.nan if i == 2 else s for i, s in enumerate(super().sigmas(process, steps))]


class Above(Halving):
    """Starts above the process."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        return [2 * s for s in super().sigmas(process, steps)]


class BelowZero(Halving):
    """Ends below 0."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        return [*super().sigmas(process, steps)[:-1], -1.0]


class TensorLevels(Halving):
    """Levels that are tensors."""

    def sigmas(self, process: Process, steps: int) -> Any:
        return list(torch.tensor(super().sigmas(process, steps)).unbind())


class IntegerZero(Halving):
    """Ends with the integer 0."""

    def sigmas(self, process: Process, steps: int) -> Any:
        return [*super().sigmas(process, steps)[:-1], 0]


class AnyNumber(Halving):
    """Makes an empty run of 0 steps, and takes True for 1."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        return super().sigmas(process, max(int(steps or 1), 1))


class PlainError(Halving):
    """Complains with a ValueError."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        if steps == 0:
            raise ValueError("no steps")
        return super().sigmas(process, steps)


class Jitters(Halving):
    """Draws its largest level."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        found = super().sigmas(process, steps)
        return [found[0] * (1 - 1e-3 * random.random()), *found[1:]]


_KEPT: dict[tuple[str, int], list[float]] = {}


class OneList(Halving):
    """Hands out the list that it keeps."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        key = (repr(process), steps)
        if key not in _KEPT:
            _KEPT[key] = super().sigmas(process, steps)
        return _KEPT[key]


class Sized(Halving):
    """Answers a size with a number."""

    def at_size(self, size: tuple[int, ...]) -> Any:
        return len(size)


class StuckWhenSmall(Halving):
    """Repeats its last level for latents of few cells."""

    few: bool = False

    def at_size(self, size: tuple[int, ...]) -> Grid:
        return self.model_copy(update={"few": math.prod(size) < 10})

    def sigmas(self, process: Process, steps: int) -> list[float]:
        found = super().sigmas(process, steps)
        return [*found[:-2], found[-1], found[-1]] if self.few else found


BROKEN: dict[str, list[type[Grid]]] = {
    "sizes": [Sized, StuckWhenSmall],
    "length": [NoZero, AsTuple],
    "accepts": [NeverFits],
    "refuses": [Curt, Crashes],
    "decreasing": [LastTwice, Rises],
    "range": [NotANumber, Above, BelowZero],
    "host-scalars": [TensorLevels, IntegerZero],
    "bad-steps": [AnyNumber, PlainError],
    "pure": [Jitters, OneList],
}
"""Name of a check -> what it must catch."""
