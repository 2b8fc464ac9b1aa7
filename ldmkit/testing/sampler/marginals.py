"""A statistical test of samplers with noise: first and second moments of many samples against the exact ones."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ldmkit.contracts.process import Process
from ldmkit.contracts.sampler import Sampler
from ldmkit.testing.reference import Rho7, predicted
from ldmkit.testing.sampler.convergence import LARGEST, MEANS, VARIANCES, gaussian_end
from ldmkit.testing.sampler.mixture import Mixture

ROWS = 8192
STEPS = 200
ALLOWED = 0.1
"""Allowed bias, in standard deviations of the statistics (Mahalanobis distance)."""
ALPHA = 1e-6
"""Probability with which a sampler whose bias is below `ALLOWED` fails `marginals`."""


class Moments(NamedTuple):
    """Result of the test.

    Args:
        distance: Mahalanobis distance of the mean statistics from their exact values.
        p: probability of a distance this large or larger from a sampler whose bias is `ALLOWED`.
    """

    distance: float
    p: float


@lru_cache(maxsize=1)
def small_mixture() -> Mixture:
    """Three components in the plane."""
    return Mixture.random((2,), components=3, seed=4)


def marginals(sampler: Sampler, process: Process, seed: int = 11) -> Moments:
    """Test the moments of `ROWS` samples, run from the exact marginal at the largest noise level to the smallest one.

    The statistics are x - m and the entries of (x - m)(x - m)^T - C, whose means are 0; m and C are the exact mean and
    covariance at that level. Their distance d from 0 is at most the bias plus a sampling error whose square times
    `ROWS` is chi-square distributed with as many degrees of freedom as there are statistics (Hotelling's test for many
    rows), so p = P(chi^2 >= ROWS (d - ALLOWED)^2).
    """
    generator = torch.Generator().manual_seed(seed)
    sigmas = Rho7(zero=False, limit=LARGEST).sigmas(process, STEPS)
    if sampler.estimate == "end":
        mean, covariance = torch.tensor(MEANS).double(), torch.diag(torch.tensor(VARIANCES).double())
        data = mean + torch.randn((ROWS, 3), generator=generator, dtype=torch.float64) * covariance.diagonal().sqrt()
        estimate = predicted(process, gaussian_end)
    else:
        mixture = small_mixture()
        mean, covariance = mixture.mean(), mixture.covariance()
        data = mixture.sample(ROWS, generator)
        estimate = predicted(process, mixture.denoise)
    start = data + sigmas[0] * torch.randn(data.shape, generator=generator, dtype=torch.float64)

    def noise(index: int) -> Tensor:
        stream = torch.Generator().manual_seed(1_000_003 * (seed + 1) + index)
        return torch.randn(data.shape, generator=stream).double()

    end = list(sampler.steps(estimate, start, sigmas, noise))[-1].x
    return hotelling(end, mean, covariance + sigmas[-1] ** 2 * torch.eye(len(mean), dtype=torch.float64))


def hotelling(x: Tensor, mean: Tensor, covariance: Tensor) -> Moments:
    """The test on samples (B, d) against a mean (d,) and a covariance (d, d)."""
    centred = x - mean
    upper = torch.triu_indices(len(mean), len(mean))
    products = (centred[:, :, None] * centred[:, None, :] - covariance)[:, upper[0], upper[1]]
    statistics = torch.cat([centred, products], dim=1)
    if not bool(statistics.isfinite().all()):
        return Moments(math.inf, 0.0)
    offset = statistics.mean(0)
    distance = float(torch.linalg.solve(statistics.T.cov(), offset).dot(offset).clamp(min=0).sqrt())
    excess = len(x) * max(distance - ALLOWED, 0.0) ** 2
    half = torch.tensor([len(offset) / 2, excess / 2], dtype=torch.float64)
    return Moments(distance, float(torch.special.gammaincc(half[0], half[1])))
