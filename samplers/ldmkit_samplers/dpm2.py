"""DPM-Solver of second order, single step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Example, Sampler, Step
from ldmkit_samplers.heun import LONG_STEP
from ldmkit_samplers.midpoint import plan, transitions


class DPM2(Sampler):
    """Lu et al. 2022 (DPM-Solver), algorithm 1: the noise at the midpoint in log sigma is used for the whole step.

    Two evaluations per step, one for a step to sigma 0. In long steps x0 at the midpoint is used instead of the noise.

    Args:
        eta: share of ancestral noise after each step, 0 to 1; at 1 it is the sampler known as DPM2 ancestral.
        long_step: a step is long if sigma / sigma' exceeds this; None: no step is, as in other software.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"eta": 1.0}))
    eta: float = Field(default=0.0, ge=0, le=1)
    long_step: float | None = Field(default=LONG_STEP, gt=1)
    revision: Literal[1] = 1

    @property
    def order(self) -> int | None:
        return None if self.eta else 2

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        return transitions(denoise, x, sigmas, plan(sigmas, self.eta, slopes=True, limit=self.long_step), noise)

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1
