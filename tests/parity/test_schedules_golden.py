"""Noise schedules and DDIM tables of the original code, to 1e-6 relative (they are stored in float32)."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ldmkit_processes.discrete import Discrete
from ldmkit_samplers.first_order import ancestral
from ldmkit_samplers.grids.timesteps import LdmDdim, Linspace

from ldmkit import InputError

GOLDENS = Path(__file__).parents[1] / "goldens"
sys.path.insert(0, str(GOLDENS))
import golden_weights as gw  # noqa: E402

MANIFEST, ARRAYS = gw.load_model_dir(str(GOLDENS / "schedules"))
SCHEDULES: dict[str, dict[str, Any]] = {
    "linear.ldm_0015_0195": {"beta_start": 0.0015, "beta_end": 0.0195},
    "linear.ldm_0015_0155": {"beta_start": 0.0015, "beta_end": 0.0155},
    "linear.ldm_0015_0205": {"beta_start": 0.0015, "beta_end": 0.0205},
    "linear.rdm_0015_015": {"beta_start": 0.0015, "beta_end": 0.015},
    "linear.sd_00085_012": {"beta_start": 0.00085, "beta_end": 0.012},
    "linear.ddpm_0001_02": {"beta_start": 0.0001, "beta_end": 0.02},
    "cosine": {"schedule": "cosine"},
    "sqrt_linear": {"schedule": "linear", "beta_start": 0.0015, "beta_end": 0.0195},
    "sqrt": {"schedule": "sqrt", "beta_start": 0.0015, "beta_end": 0.0195},
}
PROCESS = Discrete(beta_start=0.0015, beta_end=0.0195)
COUNTS = (1, 5, 10, 20, 25, 30, 50, 100, 200, 250, 400, 500)


def close(got: Any, want: Any) -> None:
    np.testing.assert_allclose(np.asarray(got), want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str) -> None:
    process = Discrete(**SCHEDULES[name])
    close(process.table.betas, ARRAYS[f"{name}.betas"])
    np.testing.assert_allclose(process.table.alpha_bars, ARRAYS[f"{name}.alphas_cumprod"], rtol=1e-5, atol=1e-12)
    given = Discrete(schedule="betas", values=process.table.betas)
    np.testing.assert_allclose(given.table.sigmas, process.table.sigmas, rtol=1e-10)


def test_no_schedule_is_left_out() -> None:
    assert {name.removesuffix(".betas") for name in ARRAYS if name.endswith(".betas")} == set(SCHEDULES)


@pytest.mark.parametrize("steps", COUNTS)
def test_ddim_uniform(steps: int) -> None:
    """Timesteps, alphas and noise of the published rule, whose number of steps is not always the one asked for."""
    grid, key = LdmDdim(count="published"), f"ddim.uniform.S{steps}"
    assert grid.timesteps(1000, steps)[::-1] == ARRAYS[f"{key}.timesteps"].tolist()
    sigmas = grid.sigmas(PROCESS, steps)
    assert len(sigmas) - 1 == MANIFEST["ddim_counts"][f"uniform.S{steps}"]
    check_tables(key, sigmas)


@pytest.mark.parametrize("steps", COUNTS)
def test_ddim_quad(steps: int) -> None:
    """The quadratic rule visits timesteps twice from 30 steps on: such a grid is refused."""
    grid, key = LdmDdim(method="quad"), f"ddim.quad.S{steps}"
    assert grid.timesteps(1000, steps)[::-1] == ARRAYS[f"{key}.timesteps"].tolist()
    if len(set(ARRAYS[f"{key}.timesteps"].tolist())) < steps:
        with pytest.raises(InputError, match="29 steps"):
            grid.sigmas(PROCESS, steps)
    else:
        check_tables(key, grid.sigmas(PROCESS, steps))


def check_tables(key: str, sigmas: list[float]) -> None:
    rising = np.asarray(sigmas[::-1])
    bars = 1 / (1 + rising**2)
    close(bars[1:], ARRAYS[f"{key}.alphas"])
    close(bars[:-1], ARRAYS[f"{key}.alphas_prev"])
    for eta in (0.0, 0.5, 1.0):
        renew = [ancestral(high, low, eta)[1] for low, high in pairwise(rising)]
        np.testing.assert_allclose(renew * np.sqrt(bars[:-1]), ARRAYS[f"{key}.eta{eta}.sigmas"], rtol=1e-5, atol=1e-7)


def test_published_counts_that_fail_there_are_refused_here() -> None:
    for steps, outcome in MANIFEST["ddim_errors"].items():
        grid = LdmDdim(count="published")
        if outcome == "ok":
            grid.sigmas(PROCESS, int(steps))
        else:
            with pytest.raises(InputError) as caught:
                grid.sigmas(PROCESS, int(steps))
            assert caught.value.fits is not None and "steps" in caught.value.fits


def test_exact_counts_are_the_published_rule_wherever_that_is_exact() -> None:
    for steps in range(1, 1000):
        exact = LdmDdim().timesteps(1000, steps)
        published = LdmDdim(count="published").timesteps(1000, steps)
        assert len(LdmDdim().sigmas(PROCESS, steps)) == steps + 1
        if len(published) == steps:
            assert exact == published


@pytest.mark.parametrize("steps", [1, 10, 20, 30, 50])
def test_sdxl_discretization(steps: int) -> None:
    _, arrays = gw.load_model_dir(str(GOLDENS / "sdxl_base"))
    process = Discrete(time_rule="nearest")
    close(process.table.sigmas, arrays["denoiser.sigmas"])
    got = Linspace(endpoint=False, rounding="floor").sigmas(process, steps)
    np.testing.assert_allclose(got, arrays[f"discretization.n{steps}"], rtol=1e-6)
