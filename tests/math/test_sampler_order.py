"""Orders of variants that no example has, and starts at almost infinite sigma with the processes that have them.

The slope of the error between 160 and 320 steps must be within 0.15 of the order: what is measured lies within 0.04.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from ldmkit_processes.discrete import Discrete
from ldmkit_processes.flow import Flow
from ldmkit_samplers.deis import DEIS
from ldmkit_samplers.dpm2 import DPM2
from ldmkit_samplers.dpmpp_2m import DPMpp2M
from ldmkit_samplers.dpmpp_2s_ancestral import DPMpp2SAncestral
from ldmkit_samplers.dpmpp_3m import DPMpp3M
from ldmkit_samplers.dpmpp_3m_third_order import DPMpp3MThirdOrder
from ldmkit_samplers.dpmpp_sde import DPMppSDE
from ldmkit_samplers.euler import Euler
from ldmkit_samplers.grids.sigmas import FlowShift
from ldmkit_samplers.grids.timesteps import Trailing
from ldmkit_samplers.heun import Heun
from ldmkit_samplers.ipndm import IPNDM
from ldmkit_samplers.lms import LMS
from ldmkit_samplers.plms import PLMS
from ldmkit_samplers.unipc import UniPC
from torch import Tensor

from ldmkit.contracts.grid import Grid
from ldmkit.contracts.process import Process
from ldmkit.contracts.sampler import Sampler
from ldmkit.testing.reference import Reference
from ldmkit.testing.sampler.convergence import error, no_noise, slope
from ldmkit.testing.sampler.mixture import Mixture, solution

VARIANTS: list[tuple[Sampler, int]] = [
    (UniPC(solver_order=1), 2),
    (UniPC(solver_order=1, corrector=False), 1),
    (UniPC(variant="bh1"), 3),
    (UniPC(solver_order=3, corrector=False), 3),
    (LMS(steps_used=3), 3),
]
"""Beside the examples of each sampler, which the contract kit measures."""


@pytest.mark.parametrize(("sampler", "order"), VARIANTS, ids=repr)
def test_variants(sampler: Sampler, order: int) -> None:
    assert sampler.order == order
    assert slope(error(sampler, Reference(), 160), error(sampler, Reference(), 320)) == pytest.approx(order, abs=0.15)


def test_lms_of_four_steps_is_better_than_third_order() -> None:
    """Its start, of first and second order, keeps it from 4: 3.71 up to 160 steps, 3.53 from there to 320."""
    assert slope(error(LMS(), Reference(), 160), error(LMS(), Reference(), 320)) > 3.3


MIXTURE = Mixture.random()
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

    def distance(candidate: Sampler) -> float:
        run = candidate.steps(MIXTURE.denoise, x.float(), grid.sigmas(process, steps), no_noise)
        return float((list(run)[-1].x - end).square().mean().sqrt())

    assert distance(sampler) < 1.1 * distance(Euler())
