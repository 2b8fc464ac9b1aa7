"""How samplers are related, and what they integrate exactly; float64 throughout."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from ldmkit_processes.discrete import Discrete
from ldmkit_samplers.churn import Churn
from ldmkit_samplers.deis import DEIS
from ldmkit_samplers.dpmpp_2s_ancestral import DPMpp2SAncestral
from ldmkit_samplers.dpmpp_3m import DPMpp3M
from ldmkit_samplers.dpmpp_3m_third_order import DPMpp3MThirdOrder
from ldmkit_samplers.dpmpp_sde import DPMppSDE
from ldmkit_samplers.euler import Euler
from ldmkit_samplers.grids.sigmas import Karras
from ldmkit_samplers.heun import Heun
from ldmkit_samplers.lms import LMS
from ldmkit_samplers.restart import Restart
from ldmkit_samplers.tcd import TCD
from ldmkit_samplers.unipc import UniPC
from torch import Tensor

from ldmkit.contracts.sampler import Sampler
from ldmkit.errors import SpecError
from ldmkit.testing.sampler.mixture import Mixture

PROCESS = Discrete()
MIXTURE = Mixture.random()


def unit(seed: int = 0) -> Tensor:
    return torch.randn((8, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SAME: list[tuple[Sampler, Sampler]] = [
    (LMS(steps_used=1), Euler()),
    (DEIS(solver_order=1), Euler()),
    (UniPC(solver_order=1, corrector=False), Euler()),
    (TCD(gamma=0), Euler()),
    (Churn(churn=0), Heun()),
    (Restart(low=20, high=30), Heun()),
    (DPMppSDE(eta=0), DPMpp2SAncestral(eta=0)),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=repr)
def test_special_cases_of_one_sampler_are_another(one: Sampler, other: Sampler) -> None:
    """To rounding: they add the same numbers in another order. The restart lies above where the run starts."""
    x, sigmas = unit() * PROCESS.sigma_max, Karras().sigmas(PROCESS, 12)
    ends = [list(sampler.steps(MIXTURE.denoise, x, sigmas, unit))[-1].x for sampler in (one, other)]
    assert torch.allclose(*ends, rtol=1e-12, atol=1e-12)


WEIGHTS = (0.7, -0.4, 0.3, 0.2)
NODES, SHARES = np.polynomial.legendre.leggauss(40)


def polynomial(sigma: float, degree: int, log: bool) -> float:
    place = math.log(sigma) if log else sigma / 4
    return sum(weight * place**k for k, weight in enumerate(WEIGHTS[: degree + 1]))


def integral(value: Callable[[float], float], start: float, end: float) -> float:
    half, middle = (end - start) / 2, (end + start) / 2
    return half * math.fsum(s * value(middle + half * n) for n, s in zip(NODES, SHARES, strict=True))


UNEVEN = [4.0, 3.1, 2.2, 1.9, 1.1, 0.7, 0.5]


@pytest.mark.parametrize("used", [1, 2, 3, 4])
def test_lms_is_exact_where_the_noise_is_a_polynomial_in_sigma(used: int) -> None:
    assert noise_error(LMS(steps_used=used), used - 1, log=False) < 1e-12
    assert noise_error(LMS(steps_used=used), used - 1, log=True) > 1e-6 or used == 1


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_is_exact_where_the_noise_is_a_polynomial_in_log_sigma(order: int) -> None:
    assert noise_error(DEIS(solver_order=order), order - 1, log=True) < 1e-12
    assert noise_error(DEIS(solver_order=order), order - 1, log=False) > 1e-6 or order == 1


def noise_error(sampler: Sampler, degree: int, log: bool) -> float:
    """x' - x is the integral of the noise: the worst transition, once the sampler has all the past that it uses."""

    def noise(sigma: float) -> float:
        return polynomial(sigma, degree, log)

    x = torch.full((1,), 3.0, dtype=torch.float64)
    steps = list(sampler.steps(lambda x, sigma: x - sigma * noise(sigma), x, UNEVEN, unit))
    pairs = list(pairwise(steps))[degree:]
    return max(abs(float(b.x - a.x) - integral(noise, b.sigma, b.sigma_next)) for a, b in pairs)


def test_the_third_order_form_is_exact_where_x0_is_quadratic_in_log_sigma() -> None:
    """x / sigma changes by the integral of -x0 / sigma^2; the published weight of the second difference misses it."""

    def x0(sigma: float) -> float:
        return polynomial(sigma, 2, log=True)

    def error(sampler: Sampler) -> float:
        x = torch.full((1,), 3.0, dtype=torch.float64)
        steps = list(sampler.steps(lambda x, sigma: torch.full_like(x, x0(sigma)), x, UNEVEN, unit))
        scaled = [(float(s.x / s.sigma_next), s.sigma, s.sigma_next) for s in steps]
        grown = [(b[0] - a[0], *b[1:]) for a, b in pairwise(scaled)]
        return max(abs(d - integral(lambda s: -x0(s) / s**2, start, end)) for d, start, end in grown[1:])

    assert error(DPMpp3MThirdOrder()) < 1e-12
    assert error(DPMpp3M()) > 1e-4


def test_a_restart_stops_goes_up_and_comes_down_again() -> None:
    """One draw a round, calls as announced; a run that starts below the interval never restarts."""
    drawn: list[int] = []
    calls: list[float] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return MIXTURE.denoise(x, sigma)

    def noise(index: int) -> Tensor:
        drawn.append(index)
        return unit(index)

    sampler = Restart(low=0.3, high=2.0, rounds=3, inner=2, share=0)
    sigmas = Karras().sigmas(PROCESS, 9)
    list(sampler.steps(denoise, unit() * sigmas[0], sigmas, noise))
    assert drawn == [0, 1, 2] and calls.count(2.0) == 3 and len(calls) == sampler.evaluations(9)
    list(sampler.steps(denoise, unit() * 0.25, [0.25, 0.1, 0.0], noise))
    assert drawn == [0, 1, 2]
    with pytest.raises(SpecError, match="restart-interval"):
        Restart(low=1.0, high=1.0)


def test_churn_never_goes_above_the_start() -> None:
    calls: list[float] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return MIXTURE.denoise(x, sigma)

    sigmas = Karras().sigmas(PROCESS, 9)
    list(Churn(churn=100).steps(denoise, unit() * sigmas[0], sigmas, unit))
    assert max(calls) == sigmas[0] and any(sigma not in sigmas for sigma in calls)
