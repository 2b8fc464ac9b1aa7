"""Scheduler configs as they are published: of old releases and of known models.

The files of models are written down from memory of the public ones; what is tested is that each is run as diffusers
runs it, or refused by the name of what is missing.
"""

from __future__ import annotations

from typing import Any

import pytest
from ldmkit_checkpoints.diffusers.scheduler import read_scheduler
from scheduler_whole_runs import distance

import ldmkit

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
OLD = {**SD, "trained_betas": None, "set_alpha_to_one": False, "skip_prk_steps": True, "clip_sample": False}
XL = {**OLD, "prediction_type": "epsilon", "sample_max_value": 1.0, "interpolation_type": "linear", "steps_offset": 1}
PIXEL = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "num_train_timesteps": 1000}
MODELS: dict[str, dict[str, Any]] = {
    "ldm-celebahq (0.1)": {"_class_name": "DDIMScheduler", "_diffusers_version": "0.1.2", "beta_start": 0.0015,
                           "beta_end": 0.0195, "beta_schedule": "scaled_linear", "clip_sample": False,
                           "timestep_values": None, "tensor_format": "pt", "num_train_timesteps": 1000},
    "ddpm-celebahq (0.1)": {"_class_name": "DDPMScheduler", **PIXEL, "clip_sample": True, "timestep_values": None,
                            "variance_type": "fixed_small", "tensor_format": "np"},
    "ddpm (0.5)": {"_class_name": "DDPMScheduler", **PIXEL, "predict_epsilon": True},
    "sd-1.4 (0.3)": {"_class_name": "PNDMScheduler", "_diffusers_version": "0.3.0", **OLD, "steps_offset": 1},
    "sd-2.0 (0.10)": {"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.10.0", **SD,
                      "algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint",
                      "lower_order_final": True, "prediction_type": "v_prediction", "denoise_final": True},
    "sd-2.1": {"_class_name": "DDIMScheduler", **OLD, "steps_offset": 1, "prediction_type": "v_prediction"},
    "sd-2.1-unclip": {"_class_name": "PNDMScheduler", **OLD, "steps_offset": 1, "prediction_type": "v_prediction"},
    "sd-xl": {"_class_name": "EulerDiscreteScheduler", **XL, "timestep_spacing": "leading",
              "use_karras_sigmas": False},
    "sdxl-turbo": {"_class_name": "EulerAncestralDiscreteScheduler", **XL, "timestep_spacing": "trailing"},
    "sd-turbo": {"_class_name": "EulerDiscreteScheduler", **XL, "timestep_spacing": "trailing"},
    "lcm": {"_class_name": "LCMScheduler", **OLD, "steps_offset": 1, "original_inference_steps": 50,
            "set_alpha_to_one": True, "timestep_scaling": 10.0, "timestep_spacing": "leading"},
    "lightning": {"_class_name": "EulerDiscreteScheduler", **XL, "timestep_spacing": "trailing",
                  "prediction_type": "sample"},
    "hyper": {"_class_name": "TCDScheduler", **OLD, "steps_offset": 1, "timestep_spacing": "leading"},
    "animatediff": {"_class_name": "DDIMScheduler", **SD, "beta_schedule": "linear", "clip_sample": False,
                    "timestep_spacing": "linspace", "steps_offset": 1},
    "zero-snr": {"_class_name": "DDIMScheduler", **OLD, "rescale_betas_zero_snr": True, "steps_offset": 1,
                 "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
    "pixart": {"_class_name": "DPMSolverMultistepScheduler", **PIXEL, "euler_at_final": False, "thresholding": False,
               "lambda_min_clipped": float("-inf"), "use_lu_lambdas": False, "variance_type": None},
    "kandinsky": {"_class_name": "DDPMScheduler", **SD, "beta_schedule": "linear", "clip_sample": False,
                  "thresholding": True, "sample_max_value": 2.0, "variance_type": "fixed_small"},
    "if": {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2", "variance_type": "learned_range",
           "thresholding": True, "dynamic_thresholding_ratio": 0.95, "sample_max_value": 1.5},
}  # fmt: skip
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "svd": ({"_class_name": "EulerDiscreteScheduler", **XL, "sigma_min": 0.002, "sigma_max": 700.0,
             "timestep_type": "continuous", "use_karras_sigmas": True}, "timestep_type"),
    "playground-2.5": ({"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_data": 0.5},
                       "EDMDPMSolverMultistepScheduler"),
    "sd-3": ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "FlowMatchEulerDiscreteScheduler"),
    "ddpm of x0 (0.5)": ({"_class_name": "DDPMScheduler", **PIXEL, "predict_epsilon": False}, "predict_epsilon"),
    "no class": ({**SD}, "None"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_published_files(name: str) -> None:
    for steps in (1, 2, 4, 20, 30, 50):
        assert distance(MODELS[name], steps) < 1e-4, steps


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_refused(name: str) -> None:
    config, word = REFUSED[name]
    with pytest.raises(ldmkit.SourceError, match=word):
        read_scheduler(config)


def test_values_that_a_file_leaves_to_the_class() -> None:
    """diffusers drops what `_use_default_values` lists, and takes the defaults of the class that it loads."""
    given = {"_class_name": "DDIMScheduler", **SD, "clip_sample": False, "timestep_spacing": "trailing"}
    left = {**given, "_use_default_values": ["timestep_spacing"]}
    assert read_scheduler(left).grid.type == "leading" and read_scheduler(given).grid.type == "trailing"
    assert distance(left, 5) < 1e-4
