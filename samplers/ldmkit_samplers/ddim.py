"""Denoising diffusion implicit models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ldmkit import Arrivals, Denoise, Example, Need, Sampler, Step, estimates
from ldmkit_samplers.first_order import ancestral, retaken, transitions
from ldmkit_samplers.limits import Limits


class DDIM(Sampler):
    """Song et al. 2021, equation 12.

    Args:
        eta: share of the reverse posterior's noise, 0 (deterministic) to 1 (ancestral sampling).
        limits: bounds of x0, for pixel-space models.
        noise: where the limits act, the noise in the step's direction remains that of the "network", or becomes that
            of the "limited" x0, which the gradient of classifier guidance then changes after the limits (as in
            guided-diffusion; without a classifier diffusers' `use_clipped_model_output`).
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"eta": 1.0}),
        Example({"eta": 0.5, "limits": {"bound": 6.0}}),
        Example({"noise": "limited", "limits": {"bound": 6.0}}),
    )
    eta: float = Field(default=0.0, ge=0, le=1)
    limits: Limits | None = None
    noise: Literal["network", "limited"] = "network"
    revision: Literal[1] = 1

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"gradient"}) if self.noise == "limited" else frozenset()

    @property
    def order(self) -> int | None:
        return 1 if self.eta == 0 else None

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        pairs = [ancestral(a, b, self.eta) for a, b in pairwise(sigmas)]
        return transitions(self._limited(denoise), x, sigmas, pairs, noise, self._outer)

    @property
    def _outer(self) -> Limits | None:
        """The limits that leave the network's noise as it is."""
        return self.limits if self.noise == "network" else None

    def _limited(self, denoise: Denoise) -> Denoise:
        """`denoise` with the limits, and guidance after them, if the noise is to follow them."""
        if self.noise == "network":
            return denoise
        estimate, limits = estimates(denoise, "gradient"), self.limits

        def limited(x: Tensor, sigma: float) -> Tensor:
            found = estimate(x, sigma)
            x0 = found.x0 if limits is None else limits(found.x0)
            return x0 if found.gradient is None else torch.add(x0, found.gradient, alpha=sigma * sigma)

        return limited

    def arriving(self, arrivals: Arrivals) -> DDIM:
        return _Arriving(**dict(self), arrivals=arrivals)


class _Arriving(DDIM):
    arrivals: Arrivals

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        levels = self.arrivals.levels
        pairs = [ancestral(a, b, self.eta) for a, b in zip(sigmas, levels, strict=False)]
        factors = [retaken(a, b) for a, b in zip(levels, sigmas[1:], strict=True)]
        return transitions(self._limited(denoise), x, sigmas, pairs, noise, self._outer, factors)
