"""Samplers with CFG++ steps: Euler, Euler ancestral, DPM++ 2M and DPM++ 2S ancestral.

Chung et al. 2024 describe the first (algorithm 2 is DDIM, which in this frame is Euler); the others apply the same
change to other samplers, as programs based on k-diffusion do. They ask `denoise` for the unconditional estimate, which
is computed in the same batch as the guided views. The guidance scale is the paper's lambda, 0 to 1, where 1 is about as
strong as an ordinary scale of 5 to 12. Every step adds lambda (x0_cond - x0_uncond) once, so guidance grows stronger
with the number of steps. Without conditions these samplers are equal to the ones they are derived from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Example, Need, Sampler, Step
from ldmkit_samplers import first_order, midpoint, two_step
from ldmkit_samplers.renoised import renoised


class CFGpp(Sampler):
    """Common to samplers with CFG++ steps. In the paper lambda is at most 1, which gives the conditional estimate;
    larger values extrapolate beyond it, as ordinary guidance does.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"unconditional"})
    max_guidance: ClassVar[float | None] = 1.0


class EulerCFGpp(CFGpp):
    """`euler` with the noise of the unconditional estimate kept (Chung et al. 2024, algorithm 2)."""

    order: ClassVar[int | None] = 1
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        pairs = [(b / a, 0.0) for a, b in pairwise(sigmas)]
        return first_order.transitions(denoise, x, sigmas, pairs, noise, look=renoised(denoise))


class EulerAncestralCFGpp(CFGpp):
    """`euler-ancestral` with the noise of the unconditional estimate kept.

    Args:
        eta: share of the fresh noise, 0 (Euler) to 1.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"eta": 0.0}))
    eta: float = Field(default=1.0, ge=0, le=1)
    revision: Literal[1] = 1

    @property
    def order(self) -> int | None:
        return 1 if self.eta == 0 else None

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        pairs = [first_order.ancestral(a, b, self.eta) for a, b in pairwise(sigmas)]
        return first_order.transitions(denoise, x, sigmas, pairs, noise, look=renoised(denoise))


class DPMpp2MCFGpp(CFGpp):
    """`dpmpp-2m` with the noise of the unconditional estimate kept; x0 is extrapolated from the last unconditional."""

    order: ClassVar[int | None] = 2
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        return two_step.transitions(denoise, x, sigmas, two_step.plan(sigmas, 0.0), noise, renoised(denoise))


class DPMpp2SAncestralCFGpp(CFGpp):
    """`dpmpp-2s-ancestral` with the noise of the unconditional estimate at the start of a step kept.

    Args:
        eta: share of the fresh noise, 0 to 1.
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
        rows = midpoint.plan(sigmas, self.eta, slopes=False)
        return midpoint.transitions(denoise, x, sigmas, rows, noise, renoised(denoise))

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1
