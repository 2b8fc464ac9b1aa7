"""DPM-Solver++ with three estimates, multistep, as other software runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Example, Sampler, Step
from ldmkit_samplers.changes import Orders, plan, transitions
from ldmkit_samplers.heun import LONG_STEP


class DPMpp3M(Sampler):
    """Lu et al. 2022 (DPM-Solver++), three estimates, multistep: as other software runs it.

    The second divided difference of x0, h^2 x0'' / 2 in log sigma, gets the weight of h^2 x0'', so the method
    approaches order 2 with many steps; with few steps it is often the better one. `dpmpp-3m-third-order` has the full
    weight. Long steps use x0 without extrapolation.

    Args:
        eta: share of the noise of the SDE, 0 to 1; at 1 it is the sampler known as DPM++ 3M SDE.
        pairs: a step with two estimates integrates the line through them ("heun"), or uses x0 at the midpoint
            ("midpoint").
        lowered: in runs of fewer steps than this, the second-to-last step uses two estimates; 15 in other software.
        long_step: a step is long if sigma / sigma' exceeds this; None: no step is, as in other software.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"eta": 1.0}))
    eta: float = Field(default=0.0, ge=0, le=1)
    pairs: Literal["heun", "midpoint"] = "heun"
    lowered: int = Field(default=0, ge=0)
    long_step: float | None = Field(default=LONG_STEP, gt=1)
    revision: Literal[1] = 1

    @property
    def order(self) -> int | None:
        return None if self.eta else 2

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        orders = Orders(self.pairs == "midpoint", self.lowered, self.long_step)
        return transitions(denoise, x, sigmas, plan(sigmas, self.eta, curvature=1.0, orders=orders), noise)
