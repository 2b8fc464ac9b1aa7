"""Samplers that renew the wrong amount of noise, for the checks of weak order and of marginals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from good_sampler import Denoise, Noise, Renewed, Straight
from torch import Tensor

from ldmkit import Step


class TooLittleNoise(Renewed):
    """Draws 5 % less than its own formula says."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        yield from super().steps(denoise, x, sigmas, lambda index: 0.95 * noise(index))


class NoiseOnTop(Straight):
    """Adds noise without going further down first."""

    order = None  # type: ignore[assignment]

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            x0 = denoise(x, sigma)
            x = x0 + (after / sigma) * (x - x0)
            x.add_(noise(i), alpha=0.1 * after)
            yield Step(i, len(sigmas) - 1, sigma, after, x, x0)


class NoiseInOneDirection(Renewed):
    """Gives both numbers of a sample correlated noise, of the right variance each."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        def tied(index: int) -> Tensor:
            drawn = noise(index)
            return 0.8 * drawn + 0.6 * drawn.roll(1, -1)

        yield from super().steps(denoise, x, sigmas, tied)
