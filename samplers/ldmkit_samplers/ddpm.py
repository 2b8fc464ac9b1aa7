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
        gradient: where the gradient of classifier guidance acts: on x0, before the limits ("estimate"); or on the mean
            of the posterior, after them, times its variance ("mean": Dhariwal & Nichol 2021, algorithm 1, for
            variance-preserving processes).
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"variance": "large"}),
        Example({"variance": "learned"}),
        Example({"variance": "learned", "gradient": "mean", "limits": {"bound": 6.0}}),
    )
    order: ClassVar[int | None] = None
    variance: Literal["small", "large", "learned"] = "small"
    limits: Limits | None = None
    gradient: Literal["estimate", "mean"] = "estimate"
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        spread = _large if self.variance == "large" else _small
        pairs = [((b / a) ** 2, spread(a, b)) for a, b in pairwise(sigmas)]
        if self.needs:
            visit = _Visit(self, denoise, sigmas, noise)
            return transitions(visit.x0, x, sigmas, pairs, visit.noise)
        unlimited, limits = denoise, self.limits
        limited = unlimited if limits is None else lambda x, sigma: limits(unlimited(x, sigma))
        return transitions(limited, x, sigmas, pairs, noise)

    @property
    def needs(self) -> frozenset[Need]:
        asked: dict[Need, bool] = {"gradient": self.gradient == "mean", "variance": self.variance == "learned"}
        return frozenset(need for need, there in asked.items() if there)


def _small(sigma: float, after: float) -> float:
    """Standard deviation of the posterior (beta tilde) in this frame; 0 for a step to sigma 0."""
    return math.sqrt(sigma * sigma - after * after) * after / sigma


def _large(sigma: float, after: float) -> float:
    """Standard deviation of the forward step (beta) in this frame; 0 for a step to sigma 0."""
    if after == 0:
        return 0.0
    return math.sqrt((sigma * sigma - after * after) * (1 + after * after) / (1 + sigma * sigma))


class _Visit:
    """What a run asks of `denoise` besides x0, step by step.

    x0 contains the guidance's gradient as far as it moves the posterior's mean, and noise of the small deviation is
    scaled to the learned one by (large / small)^v.
    """

    def __init__(
        self, sampler: DDPM, denoise: Denoise, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> None:
        self.sampler, self.drawn = sampler, noise
        self.estimate = estimates(denoise, *sorted(sampler.needs))
        self.ratios = [_large(a, b) / _small(a, b) if b else 1.0 for a, b in pairwise(sigmas)]
        self.steps = {a: (before, a, b) for before, a, b in zip([None, *sigmas], sigmas, sigmas[1:], strict=False)}
        self.share: Tensor | None = None

    def x0(self, x: Tensor, sigma: float) -> Tensor:
        """The estimate that the posterior is computed with."""
        found, limits = self.estimate(x, sigma), self.sampler.limits
        self.share = found.variance if self.sampler.variance == "learned" else None
        x0 = found.x0 if limits is None else limits(found.x0)
        if found.gradient is None or self.sampler.gradient == "estimate":
            return x0
        _, level, after = self.steps[sigma]
        bar, bar_after = 1 / (1 + level * level), 1 / (1 + after * after)
        on_x0 = math.sqrt(bar_after) * (1 - bar / bar_after) / (1 - bar)
        return x0 + found.gradient * (self._variance(sigma) / (math.sqrt(bar) * on_x0))

    def noise(self, index: int) -> Tensor:
        """The noise of a step, for the deviation of its pair."""
        if self.sampler.variance != "learned":
            return self.drawn(index)
        assert self.share is not None, "every step asks for x0 first"
        return self.drawn(index) * (self.share * math.log(self.ratios[index])).exp()

    def _variance(self, sigma: float) -> Tensor | float:
        """The posterior's variance on the process's scale; on the way to sigma 0 the small one is that of the step
        before (the published code clips its logarithm so)."""
        before, level, after = self.steps[sigma]
        small, large = _posterior(level, after)
        if self.sampler.variance == "small":
            return small
        if after == 0:
            small = large if before is None else _posterior(before, level)[0]
        if self.share is None:
            return small if after == 0 else large
        return (self.share * math.log(large / small)).exp() * small


def _posterior(sigma: float, after: float) -> tuple[float, float]:
    """(beta tilde, beta) of a variance-preserving process (Ho et al. 2020, equation 7)."""
    bar, bar_after = 1 / (1 + sigma * sigma), 1 / (1 + after * after)
    beta = 1 - bar / bar_after
    return beta * (1 - bar_after) / (1 - bar), beta
