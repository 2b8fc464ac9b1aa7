"""For each check of samplers, samplers that break its promise, each in one way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from broken_sampler_noise import NoiseInOneDirection, NoiseOnTop, TooLittleNoise
from good_sampler import Denoise, Noise, Renewed, Straight, TwoStage
from torch import Tensor

from ldmkit import Sampler, Step, estimates


class SkipsTheLast(Straight):
    """Does not go to sigma 0."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        yield from super().steps(denoise, x, [s for s in sigmas if s > 0], noise)


class CountsFromOne(Straight):
    """Its first step is step 1."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for step in super().steps(denoise, x, sigmas, noise):
            yield Step(step.index + 1, step.count, step.sigma, step.sigma_next, step.x, step.x0)


class OwnLevels(Straight):
    """Follows a grid of its own."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        moved = [sigmas[0], *(0.99 * s for s in sigmas[1:])]
        yield from super().steps(denoise, x, moved, noise)


class DividesByTheNext(Straight):
    """NaN on the way to sigma 0."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for step in super().steps(denoise, x, sigmas, noise):
            yield Step(
                step.index, step.count, step.sigma, step.sigma_next, step.x + 0 / torch.tensor(step.sigma_next), step.x0
            )


class Undeclared(TwoStage):
    """Two evaluations a step, one declared."""

    def evaluations(self, steps: int) -> int:
        return steps


class ForgetsTheLast(TwoStage):
    """Declares two evaluations for the step to 0 as well."""

    def evaluations(self, steps: int) -> int:
        return 2 * steps


class AsksAtZero(Straight):
    """Evaluates the network at the end of every step, sigma 0 included."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for step in super().steps(denoise, x, sigmas, noise):
            denoise(step.x, step.sigma_next)
            yield step

    def evaluations(self, steps: int) -> int:
        return 2 * steps


class TensorLevels(Straight):
    """Calls the network with sigma as a tensor."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        yield from super().steps(lambda x, s: denoise(x, torch.tensor(s)), x, sigmas, noise)  # type: ignore[arg-type]


class InPlace(Straight):
    """Works in the caller's starting state."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            x0 = denoise(x, sigma)
            x.sub_(x0).mul_(after / sigma).add_(x0)
            yield Step(i, len(sigmas) - 1, sigma, after, x, x0)


class SpoilsTheEstimate(Straight):
    """Works in what the network returned."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            x0 = denoise(x, sigma)
            kept = x0.clone()
            x = x0.mul_(1 - after / sigma).add_(x, alpha=after / sigma)
            yield Step(i, len(sigmas) - 1, sigma, after, x.clone(), kept)


class SpoilsTheNoise(Renewed):
    """Scales the caller's noise in place."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        def scaled(index: int) -> Tensor:
            drawn = noise(index)
            drawn.mul_(2)
            return drawn / 2

        yield from super().steps(denoise, x, sigmas, scaled)


class SameNoiseAgain(Renewed):
    """Draws noise 0 in every step."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        yield from super().steps(denoise, x, sigmas, lambda index: noise(0))


class NoiseBySigma(Renewed):
    """Draws noise by the noise level instead of an index."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        yield from super().steps(denoise, x, sigmas, lambda index: noise(sigmas[index]))  # type: ignore[arg-type]


class OrderWithNoise(Renewed):
    """Declares an order and draws noise."""

    order = 1  # type: ignore[assignment]


class NoOrder(Straight):
    """Draws no noise and declares no order."""

    order = None  # type: ignore[assignment]


class CentresTheBatch(Straight):
    """Subtracts the mean of the batch."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        yield from super().steps(lambda x, s: denoise(x - 0.01 * x.mean(0), s), x, sigmas, noise)


class SharedNoise(Renewed):
    """Gives every row the noise of the first."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        yield from super().steps(denoise, x, sigmas, lambda i: noise(i)[:1].expand_as(x).clone())


_PAST: dict[str, Tensor] = {}


class OneMemory(Sampler):
    """A two-step method whose past estimate lives in the module."""

    order = 2

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            x0 = denoise(x, sigma)
            target = x0
            if i and after:
                reach = math.log(sigma / after) / (2 * math.log(sigmas[i - 1] / sigma))
                target = x0 + reach * (x0 - _PAST["x0"][: len(x0)])
            _PAST["x0"] = x0
            x = target + (after / sigma) * (x - target)
            yield Step(i, len(sigmas) - 1, sigma, after, x, x0)


class GlobalNoise(Renewed):
    """Draws from torch's global generator."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        def drawn(index: int) -> Tensor:
            noise(index)
            return torch.randn_like(x)

        yield from super().steps(denoise, x, sigmas, drawn)


class Remembers(Straight):
    """Every run starts where the last one left its counter."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        _RUNS.append(1)
        yield from super().steps(lambda x, s: denoise(x, s) + 1e-3 * len(_RUNS), x, sigmas, noise)


_RUNS: list[int] = []


class PicturesOnly(Straight):
    """Takes a mean over the last two axes, as if they were height and width."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        yield from super().steps(lambda x, s: denoise(x, s) + 0.01 * _mean(x), x, sigmas, noise)


def _mean(x: Tensor) -> Tensor:
    axes = (-1, -2) if x.ndim > 2 else (-1,)
    return x.mean(axes, keepdim=True)


class Promotes(Renewed):
    """Adds float32 noise to a state of any dtype."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for step in super().steps(denoise, x, sigmas, noise):
            yield Step(step.index, step.count, step.sigma, step.sigma_next, step.x.float(), step.x0)


class DoubleState(Straight):
    """Works in float64 whatever it is given."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        yield from super().steps(denoise, x.double(), sigmas, noise)


class NoGradAroundYield(Straight):
    """Switches gradients off for the caller too."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        with torch.no_grad():
            yield from super().steps(denoise, x, sigmas, noise)


class AllAtOnce(Straight):
    """Makes the whole list first."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        return iter(list(super().steps(denoise, x, sigmas, noise)))


class GoesOnWhenClosed(Straight):
    """Catches everything around its yield, GeneratorExit too, and goes on."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for step in super().steps(denoise, x, sigmas, noise):
            try:
                yield step
            except BaseException:
                continue


class FinishesWhenClosed(Straight):
    """Works the rest out for nobody, and yields no more."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        run = super().steps(denoise, x, sigmas, noise)
        try:
            yield from (step for step in list(run))
        except GeneratorExit:
            denoise(x, sigmas[0])


class LooksAtTheState(Straight):
    """Stops the network's answer from growing, by a look at its largest number."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        def limited(x: Tensor, sigma: float) -> Tensor:
            x0 = denoise(x, sigma)
            return x0 / 100 if x0.abs().max() > 1e6 else x0

        yield from super().steps(limited, x, sigmas, noise)


class HostCoefficients(Straight):
    """Multiplies by a tensor that it makes on the host."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        one = torch.ones(1)
        yield from super().steps(lambda x, s: one * denoise(x, s), x, sigmas, noise)


class Overweights(Straight):
    """Its weights add up to 1.01."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        yield from super().steps(lambda x, s: 1.01 * denoise(x, s), x, sigmas, noise)


class FarFromZero(Straight):
    """Leaves 5 % of the noise at the end of every step."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            x0 = denoise(x, sigma)
            x = x0 + (after / sigma if after else 0.05) * (x - x0)
            yield Step(i, len(sigmas) - 1, sigma, after, x, x0)


class SlopesInSigma(TwoStage):
    """Heun's method in sigma, whatever the length of the step."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            x0 = denoise(x, sigma)
            slope = (x - x0) / sigma
            ahead = x + (after - sigma) * slope
            if after:
                slope = (slope + (ahead - denoise(ahead, after)) / after) / 2
            x = x + (after - sigma) * slope
            yield Step(i, len(sigmas) - 1, sigma, after, x, x0)


class SquaresSigma(Straight):
    """Overflows in float32 at large sigma."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        def scaled(x: Tensor, sigma: float) -> Tensor:
            large = x * sigma**6
            return denoise(large / sigma**6, sigma)

        yield from super().steps(scaled, x, sigmas, noise)


class ClaimsTwo(Straight):
    """Euler's method, declared to be of second order."""

    order = 2


class ClaimsThree(OneMemory):
    """A two-step method of second order, declared to be of third."""

    order = 3


class AsksInSecret(Straight):
    """Needs the unconditional estimate and does not say so."""

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        estimate = estimates(denoise, "unconditional")
        yield from super().steps(lambda x, sigma: estimate(x, sigma).x0, x, sigmas, noise)


class AsksForNothing(Straight):
    """Declares what it never asks for: runs would count a row that is not evaluated."""

    needs = frozenset({"variance"})


BROKEN: dict[str, list[Callable[[], Any]]] = {
    "steps": [SkipsTheLast, CountsFromOne, OwnLevels, DividesByTheNext],
    "evaluations": [Undeclared, ForgetsTheLast],
    "levels": [AsksAtZero, TensorLevels],
    "untouched": [InPlace, SpoilsTheEstimate, SpoilsTheNoise],
    "noise-once": [SameNoiseAgain, NoiseBySigma],
    "noise-declared": [OrderWithNoise, NoOrder],
    "needs": [AsksInSecret, AsksForNothing],
    "batch": [CentresTheBatch, SharedNoise],
    "interleaved": [OneMemory],
    "pure": [GlobalNoise, Remembers],
    "rank": [PicturesOnly],
    "dtype": [Promotes, DoubleState],
    "grad-mode": [NoGradAroundYield],
    "lazy": [AllAtOnce],
    "closed": [GoesOnWhenClosed, FinishesWhenClosed],
    "host-scalars": [LooksAtTheState],
    "device": [HostCoefficients],
    "perfect": [Overweights, FarFromZero],
    "far": [SlopesInSigma, SquaresSigma],
    "order": [ClaimsTwo, ClaimsThree],
    "weak-order": [TooLittleNoise, NoiseOnTop],
    "marginals": [NoiseOnTop, NoiseInOneDirection],
}
"""Name of a check -> what it must catch."""
