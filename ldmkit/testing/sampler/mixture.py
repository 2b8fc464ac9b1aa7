"""Data with an exactly known score: a Gaussian mixture.

For x = x0 + sigma n with x0 from the mixture, the posterior mean E[x0 | x] has a closed form at every sigma,
so solvers, processes and guidance can be checked without weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ldmkit.contracts.step import Denoise


class Mixture:
    """sum_k weight_k N(mean_k, variance_k I) over samples of any shape.

    Args:
        means: (K, *shape).
        variances: (K,).
        weights: (K,), normalised to sum to 1; equal if not given.
    """

    def __init__(self, means: Tensor, variances: Tensor, weights: Tensor | None = None):
        self.means, self.variances = means, variances
        weights = torch.ones_like(variances) if weights is None else weights
        self.log_weights = (weights / weights.sum()).log()

    @classmethod
    def random(cls, shape: tuple[int, ...] = (4,), components: int = 5, seed: int = 0) -> Mixture:
        """A fixed mixture: means of about unit size, standard deviations 0.1 to 0.4, unequal weights, float64."""
        generator = torch.Generator().manual_seed(seed)
        means = torch.randn((components, *shape), generator=generator, dtype=torch.float64)
        deviations = 0.1 + 0.3 * torch.rand(components, generator=generator, dtype=torch.float64)
        weights = 0.5 + torch.rand(components, generator=generator, dtype=torch.float64)
        return cls(means, deviations**2, weights)

    def component(self, k: int) -> Mixture:
        """The k-th component alone: the data given label k."""
        return Mixture(self.means[k : k + 1], self.variances[k : k + 1])

    def log_joint(self, x: Tensor, sigma: float) -> Tensor:
        """log p(k, x) at noise level sigma, (B, K)."""
        return self._by_component(x, sigma).T

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x]; x (B, *shape)."""
        share = self._by_component(x, sigma).softmax(0)
        flat, means, variances = x.flatten(1), self.means.to(x).flatten(1), self.variances.to(x)
        shrink = variances / (variances + sigma**2)
        return torch.addmm(flat * (shrink @ share)[:, None], (share * (1 - shrink)[:, None]).T, means).view_as(x)

    def _by_component(self, x: Tensor, sigma: float) -> Tensor:
        """log p(k, x), (K, B), with the batch as the last axis for speed."""
        flat, means = x.flatten(1), self.means.to(x).flatten(1)
        spread = (self.variances.to(x) + sigma**2)[:, None]
        distance = (flat.T.contiguous() - means[:, :, None]).square().sum(1)
        normaliser = flat.shape[1] / 2 * (2 * math.pi * spread).log()
        return self.log_weights.to(x)[:, None] - distance / (2 * spread) - normaliser

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Data, (count, *shape)."""
        components = self.log_weights.exp().multinomial(count, replacement=True, generator=generator)
        shape = (count, *self.means.shape[1:])
        noise = torch.randn(shape, generator=generator, dtype=self.means.dtype)
        deviations = self.variances.sqrt()[components].view(-1, *[1] * (noise.ndim - 1))
        return self.means[components] + deviations * noise

    def mean(self) -> Tensor:
        """Mean of the data, flat."""
        return (self.log_weights.exp()[:, None] * self.means.flatten(1)).sum(0)

    def covariance(self) -> Tensor:
        """Covariance of the data, flat."""
        centred = self.means.flatten(1) - self.mean()
        weights = self.log_weights.exp()
        between = (weights[:, None, None] * centred[:, :, None] * centred[:, None, :]).sum(0)
        return between + (weights * self.variances).sum() * torch.eye(centred.shape[1], dtype=centred.dtype)


def solution(denoise: Denoise, x: Tensor, start: float, end: float, steps: int = 4000) -> Tensor:
    """The probability-flow ODE from sigma `start` to `end` > 0: classical Runge-Kutta of order 4 in log sigma.

    dx / dlog(sigma) = x - x0. With 4000 steps on the mixtures used here its own error is below 1e-10.
    """
    h = (math.log(end) - math.log(start)) / steps
    for i in range(steps):
        at = math.log(start) + i * h

        def slope(y: Tensor, log_sigma: float) -> Tensor:
            return y - denoise(y, math.exp(log_sigma))

        k1 = slope(x, at)
        k2 = slope(x + h / 2 * k1, at + h / 2)
        k3 = slope(x + h / 2 * k2, at + h / 2)
        k4 = slope(x + h * k3, at + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x
