"""Euler steps with ancestral noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Example, Sampler, Step
from ldmkit_samplers.first_order import ancestral, transitions


class EulerAncestral(Sampler):
    """An Euler step to sigma_down, then noise sigma_up, sigma_down^2 + sigma_up^2 = sigma'^2 (k-diffusion's sampler).

    Args:
        eta: share of the noise, 0 (Euler) to 1; the update is the one of DDIM with the same eta.
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
        return transitions(denoise, x, sigmas, [ancestral(a, b, self.eta) for a, b in pairwise(sigmas)], noise)
