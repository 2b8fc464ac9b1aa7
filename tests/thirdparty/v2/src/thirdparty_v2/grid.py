"""A grid that knows the size of the latents."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

import ldmkit


class Sized(ldmkit.Grid):
    """Equal steps in log sigma from the process's largest level to its smallest, then 0; larger latents begin to be
    clear later: the steps' share to the power `power`.

    Args:
        base: cells of latents for which steps are equal.
        power: set by `at_size`.
    """

    api: ClassVar[int] = 1
    base: int = Field(default=64, ge=1)
    power: float = Field(default=1.0, gt=0)

    def sigmas(self, process: ldmkit.Process, steps: int) -> list[float]:
        """steps + 1 values, the last one 0."""
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ldmkit.InputError("steps-range", f"got {steps!r}", where="steps", fits="a whole number from 1")
        high, low = math.log(process.sigma_max), math.log(process.sigma_min)
        shares = [(i / max(steps - 1, 1)) ** self.power for i in range(steps)]
        return [math.exp(high + share * (low - high)) for share in shares] + [0.0]

    def at_size(self, size: tuple[int, ...]) -> Sized:
        """For latents of a size."""
        return self.model_copy(update={"power": (math.prod(size) / self.base) ** 0.25 or 1.0})
