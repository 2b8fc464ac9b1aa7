"""The diffusion exponential integrator sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Example, Sampler, Step
from ldmkit_samplers.heun import LONG_STEP
from ldmkit_samplers.slopes import interpolated, lowering, transitions


class DEIS(Sampler):
    """Zhang and Chen 2023, algorithm 1 (tAB-DEIS): with a polynomial in log sigma, as in other software.

    The predicted noise is extrapolated by the polynomial through its last values, which is integrated exactly. Long
    steps, and a last step to sigma 0, are Euler steps; slopes from before a long step are not used after it.

    Args:
        solver_order: number of values that the polynomial goes through, 1 to 3; fewer in the first steps.
        lowered: in runs of fewer steps than this, the last step uses one value and the one before it at most two; 15 in
            other software.
        long_step: a step is long if sigma / sigma' exceeds this; None: no step is, as in other software.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"solver_order": 2}))
    solver_order: int = Field(default=3, ge=1, le=3)
    lowered: int = Field(default=0, ge=0)
    long_step: float | None = Field(default=LONG_STEP, gt=1)
    revision: Literal[1] = 1

    @property
    def order(self) -> int | None:
        return self.solver_order

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        most = lowering(len(sigmas) - 1, self.solver_order, self.lowered)
        rows = interpolated(sigmas, most, log=True, limit=self.long_step)
        return transitions(denoise, x, sigmas, rows)
