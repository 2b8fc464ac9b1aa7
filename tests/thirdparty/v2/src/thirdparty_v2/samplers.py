"""Samplers that ask for more than x0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

import ldmkit


class Renoise(ldmkit.Sampler):
    """CFG++ with Euler's steps: the noise that is kept is that of the unconditional estimate."""

    api: ClassVar[int] = 1
    order: ClassVar[int | None] = 1
    needs: ClassVar[frozenset[ldmkit.Need]] = frozenset({"unconditional"})

    def steps(
        self, denoise: ldmkit.Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[ldmkit.Step]:
        """One evaluation a step."""
        estimate = ldmkit.estimates(denoise, "unconditional")
        for index, (sigma, after) in enumerate(pairwise(sigmas)):
            found = estimate(x, sigma)
            assert found.unconditional is not None
            x = found.x0 + (x - found.unconditional) * (after / sigma)
            yield ldmkit.Step(index, len(sigmas) - 1, sigma, after, x, found.x0)


class Spread(ldmkit.Sampler):
    """Ancestral steps of the variance-exploding SDE, with noise between the two extremes, as the network learned."""

    api: ClassVar[int] = 1
    needs: ClassVar[frozenset[ldmkit.Need]] = frozenset({"variance"})

    def steps(
        self, denoise: ldmkit.Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[ldmkit.Step]:
        """One evaluation and one draw a step; the last step, to 0, takes x0."""
        estimate = ldmkit.estimates(denoise, "variance")
        for index, (sigma, after) in enumerate(pairwise(sigmas)):
            found = estimate(x, sigma)
            assert found.variance is not None
            large = math.sqrt(sigma**2 - after**2)
            small = after * large / sigma
            x = found.x0 + (x - found.x0) * (after / sigma) ** 2
            if after > 0:
                spread = small * (large / small) ** found.variance.clamp(0, 1)
                x = x + (spread * noise(index)).to(x.dtype)
            yield ldmkit.Step(index, len(sigmas) - 1, sigma, after, x, found.x0)
