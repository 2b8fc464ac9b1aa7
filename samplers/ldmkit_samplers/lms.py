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
    """Adams-Bashforth on dx/dsigma (k-diffusion's sampler): with the weights of the grid as it is.

    The predicted noise is extrapolated by the polynomial in sigma through its last values. A long step is
    Euler's, and slopes from before it are not used after it.

    Args:
        steps_used: how many values the polynomial goes through, 1 to 4; fewer while fewer are at hand.
        long_step: sigma / sigma' from which on a step is long; None: no step is, as in other software.
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
