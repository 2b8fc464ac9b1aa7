"""A classifier's gradient on the mean of ancestral steps draws the class: an exact model of two Gaussians.

Model and classifier are known in closed form at every noise level, and so is the variance of a reverse step
within the class, which the model gives as its learned variance.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from ldmkit_processes.discrete import Discrete
from ldmkit_samplers.ddim import DDIM
from ldmkit_samplers.ddpm import DDPM
from ldmkit_samplers.grids.respaced import Respaced
from torch import Tensor

from ldmkit import Denoised, Need

CENTRES, WIDTH, ROWS = (-1.5, 1.0), 0.2, 4000
PROCESS = Discrete(schedule="linear", beta_start=1e-4, beta_end=0.02)


class TwoGaussians:
    """`denoise` for data 0.5 N(-1.5, 0.2^2) + 0.5 N(1, 0.2^2), guided to the second class with a scale."""

    def __init__(self, scale: float, levels: list[float]) -> None:
        self.scale = scale
        self.after = dict(pairwise(levels))

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        found = self.estimate(x, sigma)
        assert found.gradient is not None
        return found.x0 + sigma**2 * found.gradient

    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        total = WIDTH**2 + sigma**2
        logits = torch.stack([-((x - c) ** 2) / (2 * total) for c in CENTRES])
        shares = logits.softmax(0)
        means = [c + WIDTH**2 / total * (x - c) for c in CENTRES]
        x0 = shares[0] * means[0] + shares[1] * means[1]
        slopes = torch.stack([-(x - c) / total for c in CENTRES])
        slope = slopes[1] - (shares * slopes).sum(0)
        return Denoised(x0, None, torch.full_like(x, self.share(sigma)), self.scale * slope)

    def share(self, sigma: float) -> float:
        """Where the variance of a step within one Gaussian lies between beta tilde and beta, in logarithms."""
        after = self.after[sigma]
        if after == 0:
            return 0.0
        keep, bar, before = (after / sigma) ** 2, 1 / (1 + sigma**2), 1 / (1 + after**2)
        inner = WIDTH**2 * sigma**2 / (WIDTH**2 + sigma**2)  # the variance of x0 within the Gaussian
        small, large = after**2 * (1 - keep), (1 - bar / before) / before
        return math.log((small + (1 - keep) ** 2 * inner) / small) / math.log(large / small)


def drawn(sampler: Any, scale: float, steps: int = 200) -> Tensor:
    levels = Respaced().sigmas(PROCESS, steps)
    draws = torch.Generator().manual_seed(0)

    def noise(index: int) -> Tensor:
        return torch.randn(ROWS, 1, 1, 1, generator=draws, dtype=torch.float64)

    x = PROCESS.prior(noise(-1), levels[0])
    *_, last = sampler.steps(TwoGaussians(scale, levels), x, levels, noise)
    return last.x.flatten()


@pytest.mark.parametrize("variance", ["learned", "large", "small"])
def test_ancestral_steps_draw_the_class(variance: Any) -> None:
    """Mean and deviation are those of the class: the standard errors are 0.003 and 0.002, the rest is of 200 steps."""
    samples = drawn(DDPM(variance=variance, gradient="mean"), 1.0)
    assert (samples > 0).double().mean() > 0.999
    assert abs(samples.mean() - CENTRES[1]) < 0.02
    assert abs(samples.std() / WIDTH - 1) < 0.1


def test_implicit_steps_draw_the_class() -> None:
    samples = drawn(DDIM(noise="limited"), 1.0)
    assert (samples > 0).double().mean() > 0.999
    assert abs(samples.mean() - CENTRES[1]) < 0.02 and abs(samples.std() / WIDTH - 1) < 0.1


def test_without_a_scale_both_classes_are_drawn() -> None:
    samples = drawn(DDPM(variance="learned", gradient="mean"), 0.0)
    assert abs(float((samples > 0).double().mean()) - 0.5) < 0.03


def test_an_exact_variance_is_better_than_either_bound() -> None:
    """The deviation of what 50 steps draw, against the data's: 4 % off, and 14 and 11 with the bounds."""
    errors = {
        variance: abs(float(drawn(DDPM(variance=variance, gradient="mean"), 1.0, 50).std()) / WIDTH - 1)
        for variance in ("learned", "large", "small")
    }
    assert errors["learned"] < 0.5 * min(errors["large"], errors["small"]), errors
