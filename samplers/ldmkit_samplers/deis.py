"""The diffusion exponential integrator sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit.contracts import Denoise, Sampler, Step
from ldmkit.examples import Example
from ldmkit_samplers.slopes import interpolated, transitions


class DEIS(Sampler):
    """Zhang and Chen 2023, algorithm 1 (tAB-DEIS): with the polynomial in log sigma, as other software runs it.

    The predicted noise is extrapolated by the polynomial through its last values, and integrated exactly. A long step
    (`LONG_STEP`) is Euler's, slopes from before it are not used after it; a last step to sigma 0 is Euler's.

    Args:
        solver_order: how many values the polynomial goes through, 1 to 3; fewer while fewer are at hand.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"solver_order": 2}))
    solver_order: int = Field(default=3, ge=1, le=3)
    revision: Literal[1] = 1

    @property
    def order(self) -> int | None:
        return self.solver_order

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        return transitions(denoise, x, sigmas, interpolated(sigmas, self.solver_order, log=True))
