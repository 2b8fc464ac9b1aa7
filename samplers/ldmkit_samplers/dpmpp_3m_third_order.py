"""DPM-Solver++ with three estimates, multistep, of third order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Example, Sampler, Step
from ldmkit_samplers.changes import plan, transitions


class DPMpp3MThirdOrder(Sampler):
    """Hochbruck and Ostermann 2011, exponential Adams method of three estimates: `DPMpp3M` with the exact weight.

    x0 is the quadratic in log sigma through its last three values, integrated exactly. The first two steps, and a last
    step to sigma 0, are of lower order. Long steps use x0 without extrapolation.

    Args:
        eta: share of the noise of the SDE, 0 to 1.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"eta": 1.0}))
    eta: float = Field(default=0.0, ge=0, le=1)
    revision: Literal[1] = 1

    @property
    def order(self) -> int | None:
        return None if self.eta else 3

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        return transitions(denoise, x, sigmas, plan(sigmas, self.eta, curvature=2.0), noise)
