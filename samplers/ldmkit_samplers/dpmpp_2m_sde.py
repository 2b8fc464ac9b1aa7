"""DPM-Solver++ of second order, multistep, on the diffusion SDE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Example, Sampler, Step
from ldmkit_samplers.two_step import plan, transitions


class DPMpp2MSDE(Sampler):
    """Lu et al. 2022 (DPM-Solver++), SDE-DPM-Solver++ 2M, in its midpoint form.

    Args:
        eta: share of the noise; 1 is the published solver, 0 is DPM++ 2M.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"eta": 0.0}))
    eta: float = Field(default=1.0, ge=0, le=1)
    revision: Literal[1] = 1

    @property
    def order(self) -> int | None:
        return 2 if self.eta == 0 else None

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        return transitions(denoise, x, sigmas, plan(sigmas, self.eta), noise)
