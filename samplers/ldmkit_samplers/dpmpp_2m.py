"""DPM-Solver++ of second order, multistep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from ldmkit import Denoise, Sampler, Step
from ldmkit_samplers.two_step import plan, transitions


class DPMpp2M(Sampler):
    """Lu et al. 2022 (DPM-Solver++), algorithm 2; the first step, and a last one to sigma 0, are of first order."""

    order: ClassVar[int | None] = 2
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        return transitions(denoise, x, sigmas, plan(sigmas, 0.0), noise)
