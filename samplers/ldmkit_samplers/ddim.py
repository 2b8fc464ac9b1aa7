"""Denoising diffusion implicit models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ldmkit import Arrivals, Denoise, Example, Sampler, Step
from ldmkit_samplers.first_order import ancestral, retaken, transitions
from ldmkit_samplers.limits import Limits


class DDIM(Sampler):
    """Song et al. 2021, equation 12.

    Args:
        eta: share of the reverse posterior's noise, 0 (deterministic) to 1 (ancestral sampling).
        limits: bounds of x0, for pixel-space models; the noise in the step's direction remains the network's.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"eta": 1.0}),
        Example({"eta": 0.5, "limits": {"bound": 6.0}}),
    )
    eta: float = Field(default=0.0, ge=0, le=1)
    limits: Limits | None = None
    revision: Literal[1] = 1

    @property
    def order(self) -> int | None:
        return 1 if self.eta == 0 else None

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        pairs = [ancestral(a, b, self.eta) for a, b in pairwise(sigmas)]
        return transitions(denoise, x, sigmas, pairs, noise, self.limits)

    def arriving(self, arrivals: Arrivals) -> DDIM:
        return _Arriving(eta=self.eta, limits=self.limits, revision=self.revision, arrivals=arrivals)


class _Arriving(DDIM):
    arrivals: Arrivals

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        levels = self.arrivals.levels
        pairs = [ancestral(a, b, self.eta) for a, b in zip(sigmas, levels, strict=False)]
        factors = [retaken(a, b) for a, b in zip(levels, sigmas[1:], strict=True)]
        return transitions(denoise, x, sigmas, pairs, noise, self.limits, factors)
