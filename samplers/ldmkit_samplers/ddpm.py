"""Ancestral sampling of denoising diffusion probabilistic models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor

from ldmkit.contracts.example import Example
from ldmkit.contracts.sampler import Sampler
from ldmkit.contracts.step import Denoise, Step
from ldmkit_samplers.first_order import transitions
from ldmkit_samplers.limits import Limits


class DDPM(Sampler):
    """Ho et al. 2020, algorithm 2, on every timestep or on any part of them.

    The posterior's mean is x0 + (sigma'^2 / sigma^2) (x - x0) in this frame.

    Args:
        variance: "small" is the posterior's own (beta tilde); "large" is that of the forward step (beta), which
            knows the alphas of a variance-preserving process, sqrt(alpha_bar) = (1 + sigma^2)^-1/2.
        limits: of the x0 that the posterior is taken of, for models of pixels.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"variance": "large"}))
    order: ClassVar[int | None] = None
    variance: Literal["small", "large"] = "small"
    limits: Limits | None = None
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        pairs = [((b / a) ** 2, self._spread(a, b)) for a, b in pairwise(sigmas)]
        limits = self.limits
        limited = denoise if limits is None else lambda x, sigma: limits(denoise(x, sigma))
        return transitions(limited, x, sigmas, pairs, noise)

    def _spread(self, sigma: float, after: float) -> float:
        if after == 0:
            return 0.0
        gap = sigma * sigma - after * after
        if self.variance == "small":
            return math.sqrt(gap) * after / sigma
        return math.sqrt(gap * (1 + after * after) / (1 + sigma * sigma))
