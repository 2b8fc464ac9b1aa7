"""Grids: as many steps as asked for, strictly decreasing, never a noise level twice, clear errors otherwise."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from ldmkit_processes.discrete import Discrete
from ldmkit_processes.edm import EDM
from ldmkit_processes.flow import Flow
from ldmkit_samplers.grids.sigmas import Explicit, Exponential, FlowShift, Karras, LogSNR
from ldmkit_samplers.grids.timesteps import LdmDdim, Leading, Linspace, Trailing

from ldmkit import CompositionError, Grid, InputError, Process

PROCESS = Discrete()
SIGMA_GRIDS: list[Grid] = [
    Karras(),
    Karras(end="sigma_min"),
    Karras(rho=3),
    Exponential(),
    LogSNR(),
    FlowShift(shift=3),
]
TIME_GRIDS: list[Grid] = [
    Leading(),
    Leading(offset=1, end="first"),
    Leading(intervals="steps+1"),
    Trailing(),
    Linspace(),
    Linspace(intervals="steps+1"),
    Linspace(endpoint=False, rounding="floor"),
    Linspace(rounding="none"),
    LdmDdim(),
]
PROCESSES: list[Process] = [PROCESS, Discrete(prediction="v", zero_terminal_snr=True), Flow(shift=2), EDM()]


def check(sigmas: list[float], process: Process, steps: int) -> None:
    assert len(sigmas) == steps + 1
    assert all(math.isfinite(s) for s in sigmas)
    assert all(a > b for a, b in pairwise(sigmas))
    assert sigmas[-1] >= 0 and sigmas[-2] > 0 and sigmas[0] <= process.sigma_max * (1 + 1e-9)


@pytest.mark.parametrize("grid", SIGMA_GRIDS, ids=repr)
@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_sigma_grids(grid: Grid, process: Process) -> None:
    for steps in [*range(1, 40), 100, 1000]:
        sigmas = grid.sigmas(process, steps)
        check(sigmas, process, steps)
        assert sigmas[0] == process.sigma_max


@pytest.mark.parametrize("grid", TIME_GRIDS, ids=repr)
def test_timestep_grids(grid: Grid) -> None:
    """Every number of steps gives that many, or an error that names one that works."""
    refused = 0
    for steps in range(1, 1003):
        try:
            check(grid.sigmas(PROCESS, steps), PROCESS, steps)
        except InputError as error:
            refused += 1
            assert error.code == "input.too-many-steps" and error.fits is not None
            for count in error.fits.removesuffix(" steps").split(" or "):
                check(grid.sigmas(PROCESS, int(count)), PROCESS, int(count))
    assert refused < 200


def test_karras_matches_its_formula() -> None:
    sigmas = Karras(smallest=0.1, largest=10).sigmas(PROCESS, 5)
    for i in range(5):
        assert sigmas[i] == pytest.approx((10 ** (1 / 7) + i / 4 * (0.1 ** (1 / 7) - 10 ** (1 / 7))) ** 7)
    assert sigmas[5] == 0


def test_log_snr_is_even() -> None:
    sigmas = LogSNR().sigmas(PROCESS, 9)
    gaps = [math.log(a / b) for a, b in pairwise(sigmas)]
    assert gaps == pytest.approx([gaps[0]] * 9) and sigmas[-1] == PROCESS.sigma_min


def test_flow_shift_is_even_in_unshifted_time() -> None:
    sigmas = FlowShift(shift=3).sigmas(Flow(), 4)
    times = [s / 3 / (1 + s / 3) for s in sigmas]
    assert times == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-5)


def test_explicit() -> None:
    assert Explicit(values=(5, 1, 0)).sigmas(PROCESS, 2) == [5, 1, 0]
    with pytest.raises(InputError, match="2 steps"):
        Explicit(values=(5, 1, 0)).sigmas(PROCESS, 3)
    for values in ((5.0, 5.0, 0.0), (1.0, 2.0), (1.0, -1.0), (1.0,), (3.0, 0.0, 0.0)):
        with pytest.raises(InputError):
            Explicit(values=values).sigmas(PROCESS, len(values) - 1)


@pytest.mark.parametrize("grid", TIME_GRIDS, ids=repr)
def test_timesteps_need_a_table(grid: Grid) -> None:
    with pytest.raises(CompositionError, match="karras"):
        grid.sigmas(Flow(), 10)


def test_limits_outside_the_process() -> None:
    for grid in (Karras(largest=100), Karras(smallest=20), Exponential(smallest=1, largest=1)):
        with pytest.raises(InputError) as caught:
            grid.sigmas(PROCESS, 10)
        assert caught.value.code == "input.grid-range"
