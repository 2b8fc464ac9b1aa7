"""Ancestral sampling of denoising diffusion probabilistic models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor

from ldmkit import Denoise, Example, Need, Sampler, Step, estimates
from ldmkit_samplers.first_order import transitions
from ldmkit_samplers.limits import Limits


class DDPM(Sampler):
    """Ho et al. 2020, algorithm 2, on all timesteps or a subset of them.

    The posterior's mean is x0 + (sigma'^2 / sigma^2) (x - x0) in this frame.

    Args:
        variance: "small" is the variance of the posterior (beta tilde); "large" is that of the forward step (beta) of
            a variance-preserving process, with sqrt(alpha_bar) = (1 + sigma^2)^-1/2; "learned" interpolates between
            the two in log space with a share that the network predicts in the second half of its 2 C output channels
            (Nichol & Dhariwal 2021, equation 15; `learned_range` in diffusers).
        limits: bounds of x0, for pixel-space models; the posterior is computed with the bounded x0.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"variance": "large"}),
        Example({"variance": "learned"}),
    )
    order: ClassVar[int | None] = None
    variance: Literal["small", "large", "learned"] = "small"
    limits: Limits | None = None
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        spread = _large if self.variance == "large" else _small
        pairs = [((b / a) ** 2, spread(a, b)) for a, b in pairwise(sigmas)]
        if self.variance == "learned":
            denoise, noise = _learned(denoise, sigmas, noise)
        unlimited, limits = denoise, self.limits
        limited = unlimited if limits is None else lambda x, sigma: limits(unlimited(x, sigma))
        return transitions(limited, x, sigmas, pairs, noise)

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"variance"}) if self.variance == "learned" else frozenset()


def _small(sigma: float, after: float) -> float:
    """Standard deviation of the posterior (beta tilde) in this frame; 0 for a step to sigma 0."""
    return math.sqrt(sigma * sigma - after * after) * after / sigma


def _large(sigma: float, after: float) -> float:
    """Standard deviation of the forward step (beta) in this frame; 0 for a step to sigma 0."""
    if after == 0:
        return 0.0
    return math.sqrt((sigma * sigma - after * after) * (1 + after * after) / (1 + sigma * sigma))


def _learned(
    denoise: Denoise, sigmas: Sequence[float], noise: Callable[[int], Tensor]
) -> tuple[Denoise, Callable[[int], Tensor]]:
    """`denoise` without the variance, and noise scaled by (large / small)^v: the steps use the small deviation."""
    estimate = estimates(denoise, "variance")
    ratios = [_large(a, b) / _small(a, b) if b else 1.0 for a, b in pairwise(sigmas)]
    share: Tensor | None = None

    def x0(x: Tensor, sigma: float) -> Tensor:
        nonlocal share
        found = estimate(x, sigma)
        share = found.variance
        return found.x0

    def scaled(index: int) -> Tensor:
        assert share is not None, "every step asks for x0 first"
        return noise(index) * (share * math.log(ratios[index])).exp()

    return x0, scaled
