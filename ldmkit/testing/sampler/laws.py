"""Checks of samplers: where a run must end, on data with a known exact solution."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ldmkit.contracts.sampler import Sampler
from ldmkit.contracts.step import Denoise
from ldmkit.run.noise import Noise
from ldmkit.testing.checks import NotApplicable, check, expect
from ldmkit.testing.reference import FAR, Reference, Rho7, Whole
from ldmkit.testing.sampler.convergence import (
    MEANS,
    VARIANCES,
    NotLinear,
    error,
    estimate_of,
    gaussian_end,
    gaussian_mean,
    is_drawn,
    slope,
    weak_error,
)
from ldmkit.testing.sampler.marginals import ALLOWED, ALPHA, ROWS, marginals
from ldmkit.testing.sampler.runs import PROCESS, SHAPE, Subject, start
from ldmkit.testing.tensors import expect_close

COARSE, FINE = 160, 320
BELOW, ABOVE = 0.35, 0.65
"""How far a measured order may be from the declared one. Solvers whose first steps have a lower order than the rest
measure between two integers, and declare the lower one."""


@check("sampler", "perfect")
def perfect(subject: Subject) -> None:
    """With a perfect network, which always returns the true x0, the run ends at x0.

    Within 1e-9 in float64, after 1, 2, 3, 5 and 24 steps to sigma 0, from 14.6 and from 2^20; without noise, a sampler
    also passes through x0 + sigma n. The weights of present and past estimates must add up to 1 in every step.
    """
    generator = torch.Generator().manual_seed(3)
    x0 = torch.randn((2, *SHAPE), generator=generator, dtype=torch.float64)
    straight = not (is_drawn(subject.sampler) or subject.sampler.estimate == "distilled")
    for process in (PROCESS, Reference(prediction="flow")):
        for count in (1, 2, 3, 5, 24):
            sigmas = Rho7().sigmas(process, count)
            x = x0 + start((1, 2), sigmas[0])
            for step in subject.sampler.steps(Whole(lambda x, sigma: x0.clone()), x, sigmas, Noise((1, 2), SHAPE)):
                if step.sigma_next == 0 or (straight and process is PROCESS):
                    wanted = torch.lerp(x0, x, step.sigma_next / sigmas[0])
                    what = f"x at sigma {step.sigma_next:.4g}, step {step.index + 1} of {count} from {sigmas[0]:.4g}"
                    expect_close(step.x, wanted, f"{what}, and x0 + sigma n", 1e-9)


@check("sampler", "far")
def far(subject: Subject) -> None:
    """A run from almost infinite sigma (2^20, where flows start) is finite, and no worse than twice Euler's method.

    In float32, with 1, 4, 10 and 30 steps, equally spaced in a flow's time, on Gaussian data with a known exact end.
    Samplers with noise must end within ten standard deviations of the data. The first transition is a factor of 10^5
    in sigma: extrapolating a slope in sigma across it fails; work in log sigma, or use first order there.
    """
    generator = torch.Generator().manual_seed(5)
    means, variances = torch.tensor(MEANS), torch.tensor(VARIANCES)
    exact = is_exact(subject.sampler)
    for count in (1, 4, 10, 30):
        times = [1 - i / count for i in range(1, count)]
        sigmas = [FAR, *(t / (1 - t) for t in times), 0.0]
        x = torch.randn((64, 3), generator=generator) * FAR
        seen = list(subject.sampler.steps(estimate_of(subject.sampler), x, sigmas, Noise(range(64), (3,))))
        end = seen[-1].x
        expect(bool(end.isfinite().all()), f"finite values after {count} steps from 2^20", "NaN or infinities")
        worst = float(((end - means) / variances.sqrt()).abs().max())
        expect(worst < 10, f"samples within 10 standard deviations after {count} steps", f"{worst:.3g}")
        if exact and count > 1:
            truth = gaussian_end(x.double(), FAR)
            ours, simple = ((e - truth).square().mean().sqrt() for e in (end, euler(gaussian_mean, x, sigmas)))
            found = float(ours / simple)
            expect(found <= 2, f"at most twice the error of Euler's method in {count} steps", f"{found:.3g} times")


def is_exact(sampler: Sampler) -> bool:
    """Whether it solves the ODE of the posterior mean, without noise."""
    return sampler.estimate == "mean" and sampler.order is not None


def euler(denoise: Denoise, x: Tensor, sigmas: list[float]) -> Tensor:
    """Euler's method, for comparison."""
    for sigma, after in pairwise(sigmas):
        x = torch.lerp(denoise(x, sigma), x, after / sigma)
    return x


@check("sampler", "order")
def order(subject: Subject) -> str:
    """The declared order is the measured one.

    Error against the exact solution of the probability-flow ODE of a Gaussian mixture, with 160 and with 320 steps, in
    float64 on a Karras grid; the last step, to sigma 0, is left out. The slope must be between 0.35 below and 0.65
    above the declared order. If it is a whole order too low, a difference of estimates is most likely weighted wrongly.
    """
    declared = subject.sampler.order
    if declared is None or subject.sampler.estimate != "mean":
        raise NotApplicable("it declares no order")
    coarse, fine = error(subject.sampler, PROCESS, COARSE), error(subject.sampler, PROCESS, FINE)
    found = slope(coarse, fine)
    came = f"measured {found:.2f}: error {coarse:.3g} with {COARSE} steps, {fine:.3g} with {FINE}"
    expect(-BELOW < found - declared < ABOVE, f"order {declared}", came)
    return came


@check("sampler", "weak-order")
def weak_order(subject: Subject) -> str:
    """A sampler with noise converges to the mean and variance of the data, at first order at least.

    On Gaussian data a run is linear in its noise, so both are computed exactly from the response to each draw. The
    larger error must be below 10 % with 320 steps, and 1.7 times as large (order 0.75) with 160, unless it is below
    2 %. Too much or too little noise per step leaves an error that more steps do not remove.
    """
    if subject.sampler.estimate == "distilled" or not is_drawn(subject.sampler):
        raise NotApplicable("it draws no noise, or is for distilled networks")
    try:
        coarse, fine = weak_error(subject.sampler, PROCESS, COARSE), weak_error(subject.sampler, PROCESS, FINE)
    except NotLinear as reason:
        raise NotApplicable(str(reason)) from None
    found = slope(coarse, fine)
    came = f"measured {found:.2f}: error of moments {coarse:.3g} with {COARSE} steps, {fine:.3g} with {FINE}"
    expect(fine < 0.1, "an error of mean and variance below 0.1 with 320 steps", came)
    expect(fine < 0.02 or found > 0.75, "an error of mean and variance that decreases with the number of steps", came)
    return came


@check("sampler", "marginals")
def sample_marginals(subject: Subject) -> str:
    """A sampler with noise keeps the mean and covariance of the exact marginals of a Gaussian mixture.

    8192 samples, 200 steps, fixed seeds; Hotelling's test on all first and second moments together. A bias of up to
    0.1, in standard deviations of these statistics, is allowed; a sampler within that fails with a probability of
    less than 1e-6, by the chi-square limit of the statistic.
    """
    if subject.sampler.estimate == "distilled" or not is_drawn(subject.sampler):
        raise NotApplicable("it draws no noise, or is for distilled networks")
    found = marginals(subject.sampler, PROCESS)
    came = f"a distance of {found.distance:.3g} in {ROWS} samples: p = {found.p:.2g}"
    expect(found.p >= ALPHA, f"moments within {ALLOWED} of the exact ones (p >= {ALPHA:g})", came)
    return came
