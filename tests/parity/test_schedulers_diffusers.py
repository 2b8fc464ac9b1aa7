"""Our samplers against diffusers' schedulers over whole trajectories, on the exact denoiser of a Gaussian mixture.

diffusers keeps its tables in float32 and most of its schedulers cast the state to float32: 1e-4 of the largest
value is the tolerance, 1e-5 is what is seen. Grids visit integer timesteps or are Karras'; both predict eps and v.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers_runs import MIXTURE, SD, SHAPE, Case, Draws, difference, our_run, their_run
from ldmkit_processes.discrete import Discrete
from ldmkit_processes.flow import Flow
from ldmkit_samplers.ddim import DDIM
from ldmkit_samplers.ddpm import DDPM
from ldmkit_samplers.deis import DEIS
from ldmkit_samplers.dpmpp_2m import DPMpp2M
from ldmkit_samplers.dpmpp_2m_sde import DPMpp2MSDE
from ldmkit_samplers.dpmpp_3m import DPMpp3M
from ldmkit_samplers.euler import Euler
from ldmkit_samplers.euler_ancestral import EulerAncestral
from ldmkit_samplers.grids.sigmas import FlowShift, Karras
from ldmkit_samplers.grids.timesteps import Leading, Linspace, Trailing
from ldmkit_samplers.heun import Heun
from ldmkit_samplers.lcm import LCM
from ldmkit_samplers.limits import Limits
from ldmkit_samplers.plms import PLMS
from ldmkit_samplers.unipc import UniPC

from ldmkit import Grid, Sampler

TOLERANCE = 1e-4
SPACED: list[tuple[dict[str, Any], Grid, int]] = [
    ({"timestep_spacing": "leading", "steps_offset": 1}, Leading(offset=1), 10),
    ({"timestep_spacing": "leading"}, Leading(), 20),
    ({"timestep_spacing": "trailing"}, Trailing(), 10),
    ({"timestep_spacing": "linspace"}, Linspace(), 10),
]
WIDER: list[tuple[dict[str, Any], Grid, int]] = [
    ({"timestep_spacing": "leading", "steps_offset": 1}, Leading(offset=1, intervals="steps+1"), 10),
    ({"timestep_spacing": "trailing"}, Trailing(), 20),
    ({"timestep_spacing": "linspace"}, Linspace(intervals="steps+1"), 16),
    ({"timestep_spacing": "linspace", "use_karras_sigmas": True}, Karras(), 10),
]
KARRAS: tuple[dict[str, Any], Grid, int] = (
    {"use_karras_sigmas": True, "timestep_spacing": "linspace"},
    Karras(),
    12,
)
DDIM_OFF: dict[str, Any] = {"clip_sample": False, "set_alpha_to_one": True}
LIMITS: list[tuple[dict[str, Any], Limits]] = [
    ({"clip_sample": True}, Limits()),
    ({"clip_sample": True, "clip_sample_range": 0.3}, Limits(bound=0.3)),
    ({"clip_sample": False, "thresholding": True, "sample_max_value": 1.5}, Limits(bound=1.5, quantile=0.995)),
    (
        {"thresholding": True, "dynamic_thresholding_ratio": 0.6, "sample_max_value": 9.0},
        Limits(bound=9.0, quantile=0.6),
    ),
]
"""The mixture's values reach beyond 1, so that all of them matter."""
SDE = {"algorithm_type": "sde-dpmsolver++"}


def cases() -> list[Case]:
    found = []
    for settings, grid, steps in SPACED[:3]:
        found.append(Case("DDIMScheduler", DDIM(), grid, steps, settings | DDIM_OFF))
        found.append(
            Case("DDIMScheduler", DDIM(eta=0.7), grid, steps, settings | DDIM_OFF, call={"eta": 0.7}, injected=True)
        )
    first = {"timestep_spacing": "leading", "steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False}
    found.append(Case("DDIMScheduler", DDIM(), Leading(offset=1, end="first"), 20, first))
    for kind in ("small", "large"):
        settings = {"variance_type": f"fixed_{kind}", "clip_sample": False, "timestep_spacing": "leading"}
        found.append(Case("DDPMScheduler", DDPM(variance=kind), Leading(), 20, settings))
    for limited, limits in LIMITS:
        settings = {"timestep_spacing": "leading", **limited}
        found.append(Case("DDIMScheduler", DDIM(limits=limits), Leading(), 20, settings))
        call: dict[str, Any] = {"call": {"eta": 0.7}, "injected": True}
        found.append(Case("DDIMScheduler", DDIM(eta=0.7, limits=limits), Leading(), 20, settings, **call))
        found.append(Case("DDPMScheduler", DDPM(limits=limits), Leading(), 20, settings))
    pndm = {"skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading"}
    found.append(Case("PNDMScheduler", PLMS(), Leading(offset=1, end="first"), 20, pndm))
    for settings, grid, steps in SPACED:
        found.append(Case("EulerAncestralDiscreteScheduler", EulerAncestral(), grid, steps, settings, variance=False))
    for settings, grid, steps in [*SPACED, KARRAS]:
        found.append(Case("EulerDiscreteScheduler", Euler(), grid, steps, settings, variance=False))
        found.append(Case("HeunDiscreteScheduler", Heun(), grid, steps, settings, variance=False))
    for settings, grid, steps in WIDER:
        found.append(Case("DPMSolverMultistepScheduler", DPMpp2M(), grid, steps, settings))
        found.append(Case("DPMSolverMultistepScheduler", DPMpp2MSDE(), grid, steps, settings | SDE, injected=True))
        found.append(Case("UniPCMultistepScheduler", UniPC(), grid, steps, settings))
    for order, kind in ((1, "bh2"), (2, "bh1"), (3, "bh2"), (3, "bh1")):
        settings = {"timestep_spacing": "trailing", "solver_order": order, "solver_type": kind}
        settings["final_sigmas_type"] = "sigma_min"  # diffusers' bh1 is NaN on its way to 0
        grid = Trailing(end="first")
        found.append(Case("UniPCMultistepScheduler", UniPC(solver_order=order, variant=kind), grid, 10, settings))
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    found.append(Case("EulerDiscreteScheduler", Euler(), Trailing(), 10, zero, variance=False, zero_snr=True))
    found.append(Case("DPMSolverMultistepScheduler", DPMpp2M(), Trailing(), 10, zero, zero_snr=True))
    found.append(Case("UniPCMultistepScheduler", UniPC(), Trailing(), 10, zero, zero_snr=True))
    return found


@pytest.mark.parametrize("kind", ["eps", "v"])
@pytest.mark.parametrize("case", cases(), ids=str)
def test_trajectory(case: Case, kind: Any) -> None:
    if case.zero_snr and kind == "eps":
        pytest.skip("eps says nothing at zero signal")
    if case.theirs == "PNDMScheduler" and kind == "v":
        pytest.skip("diffusers extrapolates v there, the published method eps")
    process = Discrete(prediction=kind, zero_terminal_snr=case.zero_snr)
    assert case.grid is not None
    sigmas = case.grid.sigmas(process, case.steps)
    x = process.prior(
        torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(2), dtype=torch.float64), sigmas[0]
    )
    theirs, ours = their_run(case, kind, x), our_run(case, process, x, sigmas)
    if len(theirs) == len(ours):
        for a, b in zip(theirs, ours, strict=True):
            assert difference(a, b) < TOLERANCE
    assert difference(theirs[-1], ours[-1]) < TOLERANCE


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("given", [False, True])
def test_flow_match_euler(shift: float, given: bool) -> None:
    """Stable Diffusion 3's rule (last time 1/1000, shifted twice) and FLUX's (times 1, 1 - 1/N, ...)."""
    steps, process = 10, Flow(shift=shift)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    if given:
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps).tolist())
        grid = FlowShift(shift=shift)
    else:
        scheduler.set_timesteps(steps)
        grid = FlowShift(shift=shift, t_last=float(scheduler.sigma_min))
    sigmas = grid.sigmas(process, steps)
    times = [s / (1 + s) for s in sigmas]
    assert times == pytest.approx([float(t) for t in scheduler.sigmas], abs=1e-5)
    z = torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(2))
    x = process.prior(z.double(), sigmas[0])
    for t, step in zip(scheduler.timesteps, Euler().steps(MIXTURE.denoise, x, sigmas, Draws()), strict=True):
        now = float(t) / 1000
        x0 = MIXTURE.mean().view(1, *SHAPE) if now == 1 else MIXTURE.denoise(z.double() / (1 - now), now / (1 - now))
        z = scheduler.step(((z - x0) / now).float(), t, z).prev_sample
        assert difference(z, step.x * process.alpha(step.sigma_next)) < TOLERANCE


FLOWS: list[tuple[str, Sampler, dict[str, Any]]] = [
    ("DPMSolverMultistepScheduler", DPMpp2M(), {}),
    ("DPMSolverMultistepScheduler", DPMpp3M(), {"solver_order": 3, "solver_type": "heun"}),
    ("UniPCMultistepScheduler", UniPC(), {}),
    ("DEISMultistepScheduler", DEIS(solver_order=2), {}),
]


@pytest.mark.parametrize(("theirs", "ours", "settings"), FLOWS, ids=lambda v: v if isinstance(v, str) else None)
@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
def test_flow_forms(theirs: str, ours: Sampler, settings: dict[str, Any]) -> None:
    """The same multistep methods in the flow's frame z = (1 - t) x0 + t n, the network returning n - x0."""
    settings = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0, **settings}
    scheduler = getattr(diffusers, theirs)(**settings)
    scheduler.set_timesteps(20)
    times = [float(t) for t in scheduler.sigmas]
    times = times[:-1] if times[-1] == times[-2] else times  # DEIS ends on a level twice
    sigmas, process = [t / (1 - t) for t in times], Flow()
    z = torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(2))
    x = process.prior(z.double(), sigmas[0])
    made = list(ours.steps(MIXTURE.denoise, x, sigmas, Draws()))
    for i, step in enumerate(made):
        x0 = MIXTURE.denoise(z.double() / (1 - times[i]), sigmas[i])
        z = scheduler.step(((z - x0) / times[i]).float(), scheduler.timesteps[i], z).prev_sample
        assert difference(z, step.x * process.alpha(step.sigma_next)) < TOLERANCE
    assert len(made) == len(times) - 1


def test_flow_match_lcm() -> None:
    """Multistep consistency sampling in the flow's frame: z' = (1 - t') x0 + t' n."""
    scheduler, process = diffusers.FlowMatchLCMScheduler(), Flow()
    scheduler.set_timesteps(sigmas=[0.95, 0.7, 0.4, 0.2])
    times = [float(t) for t in scheduler.sigmas]
    sigmas = [t / (1 - t) for t in times]
    z = torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(11)
    x = process.prior(z.double(), sigmas[0])
    made = list(LCM().steps(MIXTURE.denoise, x, sigmas, Draws()))
    for i, step in enumerate(made):
        x0 = MIXTURE.denoise(z.double() / (1 - times[i]), sigmas[i])
        velocity = ((z - x0) / times[i]).float()
        z = scheduler.step(velocity, scheduler.timesteps[i], z, generator=generator).prev_sample
        assert difference(z, step.x * process.alpha(step.sigma_next)) < TOLERANCE
    assert len(made) == 4


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_tables(schedule: str) -> None:
    names: dict[str, Any] = {"linear": "linear", "scaled_linear": "linear-sqrt", "squaredcos_cap_v2": "cosine"}
    theirs = diffusers.DDPMScheduler(beta_schedule=schedule, beta_start=0.001, beta_end=0.015)
    ours = Discrete(schedule=names[schedule], beta_start=0.001, beta_end=0.015)
    np.testing.assert_allclose(ours.table.alpha_bars, theirs.alphas_cumprod.numpy(), rtol=1e-4, atol=1e-9)


def test_zero_terminal_snr_table() -> None:
    theirs = diffusers.EulerDiscreteScheduler(**SD, rescale_betas_zero_snr=True)
    ours = Discrete(zero_terminal_snr=True, prediction="v")
    np.testing.assert_allclose(ours.table.alpha_bars[:-1], theirs.alphas_cumprod.numpy()[:-1], rtol=2e-3, atol=1e-9)
    assert ours.table.alpha_bars[-1] == float(theirs.alphas_cumprod[-1])


GRIDS: list[tuple[str, dict[str, Any], Callable[[], Any]]] = [
    ("leading", {"steps_offset": 1}, lambda: Leading(offset=1)),
    ("trailing", {}, lambda: Trailing()),
    ("linspace", {}, lambda: Linspace()),
]


@pytest.mark.parametrize(("spacing", "settings", "grid"), GRIDS)
def test_timesteps_for_every_count(spacing: str, settings: dict[str, Any], grid: Callable[[], Any]) -> None:
    scheduler = diffusers.DDIMScheduler(**SD, timestep_spacing=spacing, **settings)
    compared = 0
    for steps in range(2, 500):
        scheduler.set_timesteps(steps)
        if len(scheduler.timesteps) == steps:
            compared += 1
            assert grid().timesteps(1000, steps) == scheduler.timesteps.tolist(), steps
    assert compared >= 469, compared
