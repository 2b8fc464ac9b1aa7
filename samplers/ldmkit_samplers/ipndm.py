"""Improved pseudo linear multistep sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Sampler, Step
from ldmkit_samplers.heun import LONG_STEP
from ldmkit_samplers.slopes import equal_steps, transitions


class IPNDM(Sampler):
    """Zhang and Chen 2023 (DEIS), iPNDM: PNDM's combination of slopes (Liu et al. 2022, equation 12) from the start on.

    Adams-Bashforth of order 1, 2, 3, 4, 4 ... with the weights of equal steps on every grid, which leaves order 2 on
    grids that are smooth but not even in sigma. One evaluation per step. Long steps are Euler steps, and slopes from
    before them are not used after them.

    Args:
        long_step: a step is long if sigma / sigma' exceeds this; None: no step is, as in other software.
    """

    order: ClassVar[int | None] = 2
    long_step: float | None = Field(default=LONG_STEP, gt=1)
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        return transitions(denoise, x, sigmas, equal_steps(sigmas, self.long_step))
