"""The order that each deterministic sampler declares, read off the slope of its error on a Gaussian mixture.

State in float64, a Karras grid over the Stable Diffusion schedule, the last step (to sigma 0, always of first
order) left out. The slope between 160 and 320 steps must be within 0.15 of the declared order: what is measured
lies within 0.04, and the next integer is 1 away.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from ldmkit_processes.discrete import Discrete
from ldmkit_processes.flow import Flow
from ldmkit_samplers.churn import Churn
from ldmkit_samplers.ddim import DDIM
from ldmkit_samplers.deis import DEIS
from ldmkit_samplers.dpm2 import DPM2
from ldmkit_samplers.dpmpp_2m import DPMpp2M
from ldmkit_samplers.dpmpp_2m_sde import DPMpp2MSDE
from ldmkit_samplers.dpmpp_2s_ancestral import DPMpp2SAncestral
from ldmkit_samplers.dpmpp_3m import DPMpp3M
from ldmkit_samplers.dpmpp_3m_third_order import DPMpp3MThirdOrder
from ldmkit_samplers.dpmpp_sde import DPMppSDE
from ldmkit_samplers.euler import Euler
from ldmkit_samplers.euler_ancestral import EulerAncestral
from ldmkit_samplers.grids.sigmas import FlowShift, Karras
from ldmkit_samplers.grids.timesteps import Trailing
from ldmkit_samplers.heun import Heun
from ldmkit_samplers.ipndm import IPNDM
from ldmkit_samplers.lms import LMS
from ldmkit_samplers.plms import PLMS
from ldmkit_samplers.unipc import UniPC
from torch import Tensor

from ldmkit.contracts import Grid, Process, Sampler
from ldmkit.testing.mixture import Mixture, slopes, solution

COUNTS = [10, 20, 40, 80, 160, 320]
PROCESS = Discrete()
MIXTURE = Mixture.random()
TOLERANCE = 0.15


@cache
def start_and_end() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = PROCESS.prior(torch.randn(16, 4, generator=generator, dtype=torch.float64), PROCESS.sigma_max)
    return x, solution(MIXTURE.denoise, x, PROCESS.sigma_max, PROCESS.sigma_min, 2000)


def no_noise(index: int) -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")


def errors(sampler: Sampler) -> list[float]:
    x, end = start_and_end()
    found = []
    for count in COUNTS:
        steps = list(sampler.steps(MIXTURE.denoise, x, Karras().sigmas(PROCESS, count + 1), no_noise))
        found.append(float((steps[-2].x - end).square().mean().sqrt()))
    return found


DECLARED: list[Sampler] = [
    *(Euler(), DDIM(), PLMS(), Heun(), DPMpp2M(), UniPC(), IPNDM(), DPM2(), LMS(steps_used=2), LMS(steps_used=3)),
    *(DEIS(), DEIS(solver_order=2), DPMpp3M(), DPMpp3MThirdOrder(), DPMpp2SAncestral(eta=0), DPMppSDE(eta=0)),
    Churn(churn=0),
]


@pytest.mark.parametrize("sampler", DECLARED, ids=repr)
def test_declared_order_is_measured(sampler: Sampler) -> None:
    assert sampler.order is not None
    found = errors(sampler)
    assert found[-1] < found[0] / 30
    assert slopes(found, COUNTS)[-1] == pytest.approx(sampler.order, abs=TOLERANCE)


VARIANTS: list[tuple[Sampler, int]] = [
    (UniPC(corrector=False), 2),
    (UniPC(solver_order=1), 2),
    (UniPC(variant="bh1"), 3),
    (DPMpp2MSDE(eta=0), 2),
    (EulerAncestral(eta=0), 1),
]


@pytest.mark.parametrize(("sampler", "order"), VARIANTS, ids=repr)
def test_variants(sampler: Sampler, order: int) -> None:
    assert slopes(errors(sampler), COUNTS)[-1] == pytest.approx(order, abs=TOLERANCE)


def test_lms_of_four_steps_is_better_than_third_order() -> None:
    """Its start, of first and second order, keeps it from 4: 3.71 up to 160 steps, 3.53 from there to 320."""
    assert slopes(errors(LMS()), COUNTS)[-1] > 3.3


def test_the_reference_has_converged() -> None:
    x, end = start_and_end()
    finer = solution(MIXTURE.denoise, x, PROCESS.sigma_max, PROCESS.sigma_min, 4000)
    assert float((finer - end).abs().max()) < 1e-10


FAR: list[tuple[Process, Grid]] = [
    (Flow(), FlowShift()),
    (Flow(shift=3), FlowShift(shift=3)),
    (Discrete(prediction="v", zero_terminal_snr=True), Trailing()),
]


HIGHER: list[Sampler] = [
    *(PLMS(), Heun(), DPMpp2M(), UniPC(), UniPC(solver_order=3), IPNDM(), LMS(), DEIS(), DPM2(), DPMpp3M()),
    *(DPMpp3MThirdOrder(), DPMpp2SAncestral(eta=0), DPMppSDE(eta=0)),
]


@cache
def far_start_and_end(process: Process) -> tuple[Tensor, Tensor]:
    noise = torch.randn(64, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = process.prior(noise, process.sigma_max)
    return x, solution(MIXTURE.denoise, x, process.sigma_max, 1e-4, 1000)


@pytest.mark.parametrize("sampler", HIGHER, ids=repr)
@pytest.mark.parametrize(("process", "grid"), FAR, ids=repr)
@pytest.mark.parametrize("steps", [4, 10, 30])
def test_a_start_at_almost_infinite_sigma(sampler: Sampler, process: Process, grid: Grid, steps: int) -> None:
    """Flows start at sigma 2^20, zero terminal SNR at 4096: no higher-order sampler may do worse than Euler there.

    float32 state, error against the ODE's solution at the end of the run. 10 % are allowed, at 10 steps PLMS is no
    better than Euler; a slope taken in sigma across the first step is wrong by 10 to 10^4 times.
    """
    x, end = far_start_and_end(process)

    def error(candidate: Sampler) -> float:
        run = candidate.steps(MIXTURE.denoise, x.float(), grid.sigmas(process, steps), no_noise)
        return float((list(run)[-1].x - end).square().mean().sqrt())

    assert error(sampler) < 1.1 * error(Euler())
