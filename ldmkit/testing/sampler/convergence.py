"""How fast a sampler converges, measured on data with an exact score.

Samplers without noise: their error against the probability-flow ODE of a Gaussian mixture. Samplers with noise: their
error in mean and variance on Gaussian data, where a run is linear in its noise, so that both can be computed from the
response to each draw, without sampling error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ldmkit.contracts.process import Process
from ldmkit.contracts.sampler import Sampler
from ldmkit.contracts.step import Denoise
from ldmkit.testing.reference import Reference, Rho7, Whole, predicted
from ldmkit.testing.sampler.mixture import Mixture, solution

MIXTURE = Mixture.random()
ROWS = 16
LARGEST = 80.0
"""Largest starting level: from a flow's own start, 2^20, the long first steps would hide the order."""
STEPS_PER_E = 40
"""Step size of the reference solution, in log sigma; with Richardson extrapolation its error is below 1e-9."""


class Path(NamedTuple):
    """Starting states at a run's largest noise level, and the solution of the ODE at the smallest one; float64."""

    start: Tensor
    end: Tensor


class NoiseDrawn(AssertionError):
    """A sampler asked for noise where none was expected."""


class NotLinear(Exception):
    """A run on Gaussian data is not linear in its start and noise, so its moments cannot be computed from responses."""


def no_noise(index: int) -> Tensor:
    """The noise of a run that must not draw any."""
    raise NoiseDrawn(f"noise({index}) was asked for")


@lru_cache(maxsize=8)
def path(process: Process) -> Path:
    """The exact solution for a run on a process."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn((ROWS, *MIXTURE.means.shape[1:]), generator=generator, dtype=torch.float64)
    largest, smallest = min(process.sigma_max, LARGEST), process.sigma_min
    start = process.prior(noise, largest)
    steps = 2 * round(STEPS_PER_E * math.log(largest / smallest) / 2)
    ends = [solution(MIXTURE.denoise, start, largest, smallest, n) for n in (steps // 2, steps)]
    return Path(start, ends[1] + (ends[1] - ends[0]) / 15)


def run_levels(process: Process, steps: int) -> list[float]:
    """The noise levels of a run on a process: `steps` transitions down to its smallest level, and then one to 0."""
    return Rho7(limit=LARGEST).sigmas(process, steps + 1)


def trajectory(sampler: Sampler, process: Process, steps: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """The state at the smallest noise level after `steps` transitions, of a run that continues to sigma 0.

    Raises:
        NoiseDrawn: the sampler is not deterministic.
    """
    denoise = predicted(process, MIXTURE.denoise)
    start = path(process).start.to(dtype, copy=True)  # protects later measurements from samplers that write to it
    run = sampler.steps(denoise, start, run_levels(process, steps), no_noise)
    return list(run)[steps - 1].x


def error(sampler: Sampler, process: Process, steps: int, dtype: torch.dtype = torch.float64) -> float:
    """Root mean square distance to the exact solution at the smallest noise level; data have unit size."""
    return float((trajectory(sampler, process, steps, dtype).double() - path(process).end).square().mean().sqrt())


def slope(coarse: float, fine: float, ratio: float = 2.0) -> float:
    """Order from two errors, the second with `ratio` times as many steps; 0 if one of them is not a number."""
    if not (math.isfinite(coarse) and math.isfinite(fine) and coarse > 0 and fine > 0):
        return 0.0
    return math.log(coarse / fine) / math.log(ratio)


VARIANCES = (0.04, 0.25, 1.0)
"""Variances of the Gaussian data, one per column, with means 1, -0.5 and 0.25."""
MEANS = (1.0, -0.5, 0.25)


def gaussian_mean(x: Tensor, sigma: float) -> Tensor:
    """E[x0 | x] of that data, x (B, 3)."""
    variances, means = x.new_tensor(VARIANCES), x.new_tensor(MEANS)
    return (variances * x + sigma * sigma * means) / (variances + sigma * sigma)


def gaussian_end(x: Tensor, sigma: float) -> Tensor:
    """The solution at sigma 0 of the probability-flow ODE of that data from x (B, 3): an exact consistency model."""
    variances, means = x.new_tensor(VARIANCES), x.new_tensor(MEANS)
    return means + (x - means) * (variances / (variances + sigma * sigma)).sqrt()


def estimate_of(sampler: Sampler) -> Denoise:
    """The exact estimate on the Gaussian data of the kind that a sampler is designed for."""
    return Whole(gaussian_end if sampler.estimate == "end" else gaussian_mean)


class CountedNoise:
    """Records the noise indices that a run asks for, in order."""

    def __init__(self, make: Callable[[int], Tensor]):
        self.make, self.asked = make, list[int]()

    def __call__(self, index: int) -> Tensor:
        self.asked.append(index)
        return self.make(index)


class Response(NamedTuple):
    """A linear run, by column: x_end = constant + factors[0] x_start + sum_i factors[1 + i] noise(indices[i])."""

    constant: Tensor
    factors: Tensor
    indices: list[int]


def is_drawn(sampler: Sampler) -> bool:
    """Whether a run of twelve steps draws noise."""
    draws = CountedNoise(lambda index: torch.zeros(1, 3, dtype=torch.float64))
    _end(sampler, Reference(), torch.zeros(1, 3, dtype=torch.float64), run_levels(Reference(), 12), draws)
    return bool(draws.asked)


def response(sampler: Sampler, process: Process, sigmas: Sequence[float]) -> Response:
    """How the end of a run on the Gaussian data depends on its start and on each draw, exactly, in float64.

    A batch in which each row sets one of them to 1 and the others to 0 gives all responses in one run.

    Raises:
        NotLinear: a run from a typical start with typical noise ends elsewhere.
    """
    draws = CountedNoise(lambda index: torch.zeros(1, 3, dtype=torch.float64))
    _end(sampler, process, torch.zeros(1, 3, dtype=torch.float64), sigmas, draws)
    indices = list(dict.fromkeys(draws.asked))
    inputs = torch.cat([torch.zeros(1, 1 + len(indices)), torch.eye(1 + len(indices))]).double()
    generator = torch.Generator().manual_seed(2)
    typical = torch.randn(1, 1 + len(indices), generator=generator, dtype=torch.float64)
    typical[0, 0] *= sigmas[0]
    inputs = torch.cat([inputs, typical])[:, :, None].expand(-1, -1, 3)
    rows = {index: inputs[:, k] for k, index in enumerate(indices, start=1)}
    end = _end(sampler, process, inputs[:, 0].clone(), sigmas, lambda i: rows[i] if i in rows else 0 * inputs[:, 0])
    constant, factors = end[0], end[1:-1] - end[0]
    wanted = constant + (typical[0][:, None] * factors).sum(0)
    if not torch.allclose(end[-1], wanted, rtol=1e-6, atol=1e-6):
        raise NotLinear("a run on Gaussian data is not linear in its noise")
    return Response(constant, factors, indices)


def _end(
    sampler: Sampler, process: Process, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
) -> Tensor:
    return list(sampler.steps(predicted(process, estimate_of(sampler)), x, sigmas, noise))[-1].x


def gaussian_moments(sampler: Sampler, process: Process, sigmas: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Mean and variance at the end of a run on the Gaussian data, (3,) each, from a start with the exact ones.

    Raises:
        NotLinear: see `response`.
    """
    constant, factors, _ = response(sampler, process, sigmas)
    start = torch.tensor(VARIANCES, dtype=torch.float64) + sigmas[0] ** 2
    mean = constant + factors[0] * torch.tensor(MEANS, dtype=torch.float64)
    return mean, factors[0].square() * start + factors[1:].square().sum(0)


def weak_error(sampler: Sampler, process: Process, steps: int) -> float:
    """The largest error of mean (in standard deviations) and variance (relative) at the smallest noise level."""
    sigmas = Rho7(zero=False, limit=LARGEST).sigmas(process, steps)
    mean, variance = gaussian_moments(sampler, process, sigmas)
    exact = torch.tensor(VARIANCES, dtype=torch.float64) + sigmas[-1] ** 2
    shift = (mean - torch.tensor(MEANS, dtype=torch.float64)).abs() / exact.sqrt()
    return float(torch.maximum(shift, (variance / exact - 1).abs()).max())
