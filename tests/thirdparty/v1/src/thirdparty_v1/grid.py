"""Equal steps of the angle."""

from __future__ import annotations

import math
from typing import ClassVar

import ldmkit


class Arc(ldmkit.Grid):
    """From the process's largest noise level to 0, in equal steps of atan(sigma)."""

    api: ClassVar[int] = 1

    def sigmas(self, process: ldmkit.Process, steps: int) -> list[float]:
        """steps + 1 values, the last one 0."""
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ldmkit.InputError("steps-range", f"got {steps!r}", where="steps", fits="a whole number from 1")
        top = math.atan(process.sigma_max)
        return [math.tan(top * (steps - i) / steps) for i in range(steps)] + [0.0]
