"""Scheduler configs of diffusers' folders: what they become here, what is written back, and what is refused.

Tolerance of the tables: 1e-5 relative, as theirs are float32; 2e-4 where theirs rescales them in float32.
"""

from __future__ import annotations

import warnings
from typing import Any

import diffusers
import numpy as np
import pytest
from ldmkit_checkpoints.diffusers.scheduler import read_scheduler
from ldmkit_checkpoints.diffusers.scheduler_config import class_of, scheduler_config
from ldmkit_processes.discrete import Discrete

import ldmkit

SAID = ("plms:", "timestep_spacing trailing", "solver_order 3", "heun:", "dpm2:", "lms:", "deis:", "tcd:")  # of float32
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize(
    ("config", "sampler", "grid"),
    [
        ({"_class_name": "DDIMScheduler", "steps_offset": 1, "set_alpha_to_one": False}, "ddim", ("leading", "first")),
        ({"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}, "ddim", ("trailing", "zero")),
        ({"_class_name": "PNDMScheduler", "steps_offset": 1, "skip_prk_steps": True}, "plms", ("leading", "first")),
        ({"_class_name": "DDPMScheduler", "variance_type": "fixed_large"}, "ddpm", ("leading", "zero")),
        ({"_class_name": "DDIMScheduler", "clip_sample": False}, "ddim", ("leading", "zero")),
        ({"_class_name": "DDIMScheduler", "clip_sample_range": 2.0}, "ddim", ("leading", "zero")),
        ({"_class_name": "DDPMScheduler", "thresholding": True, "sample_max_value": 3.0}, "ddpm", ("leading", "zero")),
        ({"_class_name": "EulerDiscreteScheduler"}, "euler", ("linspace", "zero")),
        ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}, "euler", ("karras", "zero")),
        ({"_class_name": "EulerAncestralDiscreteScheduler"}, "euler-ancestral", ("linspace", "zero")),
        ({"_class_name": "HeunDiscreteScheduler"}, "heun", ("linspace", "zero")),
        ({"_class_name": "DPMSolverMultistepScheduler"}, "dpmpp-2m", ("linspace", "zero")),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"},
            "dpmpp-2m-sde",
            ("linspace", "zero"),
        ),
        ({"_class_name": "UniPCMultistepScheduler", "final_sigmas_type": "sigma_min"}, "unipc", ("linspace", "first")),
        ({"_class_name": "LMSDiscreteScheduler"}, "lms", ("linspace", "zero")),
        ({"_class_name": "KDPM2DiscreteScheduler", "use_karras_sigmas": True}, "dpm2", ("karras", "zero")),
        ({"_class_name": "KDPM2AncestralDiscreteScheduler"}, "dpm2", ("linspace", "zero")),
        ({"_class_name": "DPMSolverSDEScheduler"}, "dpmpp-sde", ("linspace", "zero")),
        ({"_class_name": "DEISMultistepScheduler", "solver_order": 3}, "deis", ("linspace", "first")),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3, "solver_type": "heun"},
            "dpmpp-3m",
            ("linspace", "zero"),
        ),
        ({"_class_name": "LCMScheduler"}, "lcm", ("trailing", "zero")),
        ({"_class_name": "TCDScheduler"}, "tcd", ("trailing", "first")),
        ({"_class_name": "DPMSolverSinglestepScheduler"}, "ddim", ("linspace", "zero")),
    ],
)
def test_schedulers(config: dict[str, Any], sampler: str, grid: tuple[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a replaced class
        plan = read_scheduler({**SD, **config})
    assert (plan.sampler.type, plan.grid.type) == (sampler, grid[0])
    assert ldmkit.get("grid", plan.grid.type).of(plan.grid.config).end == grid[1]
    process = Discrete.of(plan.process.config)
    replaced = config["_class_name"] == "DPMSolverSinglestepScheduler"
    notes = [note for note in plan.notes if not note.startswith(SAID)]
    assert bool(notes) == replaced
    name = class_of(plan.sampler)
    assert name is not None
    written = scheduler_config(name, process, plan.sampler, plan.grid)
    theirs = getattr(diffusers, written["_class_name"]).from_config(written)
    assert np.allclose(theirs.alphas_cumprod.numpy(), process.table.alpha_bars, rtol=1e-5)
    if not replaced:
        assert read_scheduler(written)[:3] == plan[:3]


ZERO_SNR = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


@pytest.mark.parametrize(
    ("beta_schedule", "extra"), [("linear", {}), ("squaredcos_cap_v2", {}), ("scaled_linear", ZERO_SNR)]
)
def test_processes_have_their_tables(beta_schedule: str, extra: dict[str, Any]) -> None:
    config = {"_class_name": "EulerDiscreteScheduler", **SD, "beta_schedule": beta_schedule, **extra}
    theirs = diffusers.EulerDiscreteScheduler.from_config(config)
    process = Discrete.of(read_scheduler(config).process.config)
    assert np.allclose(theirs.alphas_cumprod.numpy(), process.table.alpha_bars, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule"),
        ({"prediction_type": "flow"}, "prediction_type"),
        ({"_class_name": "EulerDiscreteScheduler", "thresholding": True}, "thresholding"),
        ({"_class_name": "HeunDiscreteScheduler", "clip_sample": True}, "clip_sample"),
        ({"timestep_spacing": "random"}, "timestep_spacing"),
        ({"_class_name": "EulerDiscreteScheduler", "final_sigmas_type": "one"}, "final_sigmas_type"),
        ({"_class_name": "PNDMScheduler"}, "skip_prk_steps"),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned"}, "variance_type"),
        ({"_class_name": "EulerDiscreteScheduler", "use_beta_sigmas": True}, "use_beta_sigmas"),
        ({"_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear"}, "interpolation_type"),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 1}, "solver_order"),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_type": "heun"}, "solver_type"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3, "algorithm_type": "sde-dpmsolver++"},
            "solver_order",
        ),
        ({"_class_name": "DEISMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas"),
        ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}, "algorithm_type"),
        ({"_class_name": "UniPCMultistepScheduler", "predict_x0": False}, "predict_x0"),
        ({"beta_start": -1.0}, "beta_start"),
        ({"num_train_timesteps": 0}, "steps"),
        ({"rescale_betas_zero_snr": True}, "eps"),
    ],
)
def test_scheduler_values_that_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ldmkit.LdmkitError) as caught:
        read_scheduler({"_class_name": "DDIMScheduler", **SD, **changes})
    assert words in str(caught.value)
