"""Linear multistep sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Example, Sampler, Step
from ldmkit_samplers.heun import LONG_STEP
from ldmkit_samplers.slopes import interpolated, transitions


class LMS(Sampler):
    """Adams-Bashforth on dx/dsigma (k-diffusion's sampler), with weights computed for the actual grid.

    The predicted noise is extrapolated by the polynomial in sigma through its last values. Long steps are
    Euler steps, and slopes from before them are not used after them.

    Args:
        steps_used: number of values that the polynomial goes through, 1 to 4; fewer in the first steps.
        long_step: a step is long if sigma / sigma' exceeds this; None: no step is, as in other software.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"steps_used": 2}))
    steps_used: int = Field(default=4, ge=1, le=4)
    long_step: float | None = Field(default=LONG_STEP, gt=1)
    revision: Literal[1] = 1

    @property
    def order(self) -> int | None:
        return min(self.steps_used, 3)  # the first steps are of lower order: with 4 it measures 3.5 to 3.7

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        rows = interpolated(sigmas, [self.steps_used] * (len(sigmas) - 1), log=False, limit=self.long_step)
        return transitions(denoise, x, sigmas, rows)
