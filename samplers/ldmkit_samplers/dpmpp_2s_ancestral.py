"""DPM-Solver++ of second order, single step, with ancestral noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Example, Sampler, Step
from ldmkit_samplers.midpoint import plan, transitions


class DPMpp2SAncestral(Sampler):
    """Lu et al. 2022 (DPM-Solver++), algorithm 1 with r = 1/2, then ancestral noise (k-diffusion's sampler).

    Two evaluations per step, one for a step to sigma 0.

    Args:
        eta: share of the noise, 0 to 1; at 0 it is DPM-Solver++(2S), of second order.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"eta": 0.0}))
    eta: float = Field(default=1.0, ge=0, le=1)
    revision: Literal[1] = 1

    @property
    def order(self) -> int | None:
        return None if self.eta else 2

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        return transitions(denoise, x, sigmas, plan(sigmas, self.eta, slopes=False), noise)

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1
