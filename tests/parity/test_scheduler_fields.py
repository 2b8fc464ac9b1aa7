"""Fields of diffusers' schedulers: whole runs equal to theirs, or a refusal that names the field.

Tolerance 1e-4 of the largest value, as their tables and states are float32; 1e-5 is what is seen.
"""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest
from ldmkit_checkpoints.diffusers.scheduler import read_scheduler
from ldmkit_checkpoints.diffusers.scheduler_fields import CLASSES, repaired
from scheduler_whole_runs import distance, ours, theirs

import ldmkit

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TOLERANCE = 1e-4


@pytest.mark.parametrize("name", CLASSES)
def test_fields_and_defaults_are_those_of_the_installed_class(name: str) -> None:
    signature = inspect.signature(getattr(diffusers, name).__init__).parameters
    theirs = {key: field.default for key, field in signature.items() if key not in ("self", "kwargs")}
    ours = dict(CLASSES[name].defaults)
    if name == "DEISMultistepScheduler":
        assert ours.pop("final_sigmas_type") == "sigma_min"  # no field of theirs: it always ends there
    assert ours == theirs


def config(name: str, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"_class_name": name, **SD, "timestep_spacing": "leading", "steps_offset": 1}
    if name in ("DDIMScheduler", "DDPMScheduler"):
        given["clip_sample"] = False
    if name == "PNDMScheduler":
        given["skip_prk_steps"] = True
    return {**given, **changes}


pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # of numpy, at diffusers
LINE = {"timestep_spacing": "linspace", "steps_offset": 0}
TRAILING = {"timestep_spacing": "trailing"}
K = {"use_karras_sigmas": True}


@pytest.mark.parametrize("spacing", [{}, LINE, TRAILING], ids=["leading", "linspace", "trailing"])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("EulerDiscreteScheduler", {}),
        ("EulerDiscreteScheduler", {"prediction_type": "v_prediction"}),
        ("EulerDiscreteScheduler", {"num_train_timesteps": 400}),
        ("EulerDiscreteScheduler", K),
        ("EulerDiscreteScheduler", {**K, "sigma_max": 5.0}),
        ("EulerDiscreteScheduler", {**K, "sigma_min": 0.1}),
        ("EulerDiscreteScheduler", {"use_exponential_sigmas": True, "sigma_max": 5.0, "sigma_min": 0.1}),
        ("EulerDiscreteScheduler", {"sigma_max": 5.0}),
        ("EulerAncestralDiscreteScheduler", {}),
        ("HeunDiscreteScheduler", {}),
        ("HeunDiscreteScheduler", K),
        ("LMSDiscreteScheduler", {}),
        ("LMSDiscreteScheduler", K),
        ("DPMSolverMultistepScheduler", {}),
        ("DPMSolverMultistepScheduler", K),
        ("DPMSolverMultistepScheduler", {"solver_type": "midpoint", "prediction_type": "sample"}),
        ("DPMSolverMultistepScheduler", {"use_exponential_sigmas": True}),
        ("UniPCMultistepScheduler", {"use_exponential_sigmas": True}),
        ("UniPCMultistepScheduler", {}),
        ("UniPCMultistepScheduler", K),
        ("UniPCMultistepScheduler", {**K, "sigma_max": 5.0, "sigma_min": 0.1}),
        ("UniPCMultistepScheduler", {"solver_order": 3, "final_sigmas_type": "sigma_min"}),
    ],
)
def test_whole_runs(name: str, changes: dict[str, Any], spacing: dict[str, Any]) -> None:
    for steps in (10, 25) if changes.get("use_exponential_sigmas") else (2, 10, 25):
        assert distance(config(name, **spacing, **changes), steps) < TOLERANCE, steps


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50, 999])
@pytest.mark.parametrize("clip", [False, True])
def test_ddim_that_ends_on_the_first_timestep(offset: int, steps: int, clip: bool) -> None:
    """At offset 0 the last call is one at timestep 0 that goes nowhere, but for the clipping."""
    given = config("DDIMScheduler", set_alpha_to_one=False, steps_offset=offset, clip_sample=clip)
    assert distance(given, steps) < TOLERANCE


EULER = {"final_sigmas_type": "sigma_min"}


@pytest.mark.parametrize("spacing", [{}, LINE, TRAILING], ids=["leading", "linspace", "trailing"])
@pytest.mark.parametrize("steps", [2, 3, 10, 50, 998])
def test_euler_that_ends_on_the_smallest_sigma(spacing: dict[str, Any], steps: int) -> None:
    """Their latents are the last state as it stands: 4e-4 more than the process's own frame has it."""
    assert distance(config("EulerDiscreteScheduler", **spacing, **EULER), steps) < TOLERANCE
    if spacing == LINE:
        assert distance(config("EulerDiscreteScheduler", **spacing, **EULER, **K), steps) < TOLERANCE


@pytest.mark.parametrize(
    "given",
    [
        config("EulerDiscreteScheduler", **LINE, **EULER),
        config("EulerDiscreteScheduler", **LINE, **EULER, **K),
    ],
)
def test_one_step_that_starts_where_it_ends_says_so(given: dict[str, Any]) -> None:
    with pytest.raises(ldmkit.InputError, match="starts where it ends"):
        distance(given, 1)


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
@pytest.mark.parametrize("out_of", [50, 100, 7])
def test_distilled_schedulers_choose_among_the_timesteps_of_their_training(name: str, out_of: int) -> None:
    for steps in (1, 2, 3, 4, 7):
        assert distance(config(name, original_inference_steps=out_of), steps) < TOLERANCE, steps
    with pytest.raises(ldmkit.InputError, match=f"{out_of + 1} steps"):
        ours(config(name, original_inference_steps=out_of), out_of + 1)


@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler"])
@pytest.mark.parametrize("spacing", [{}, LINE, TRAILING], ids=["leading", "linspace", "trailing"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7, 15, 30, 50, 501, 999])
@pytest.mark.parametrize("to_one", [False, True])
def test_whole_strides(name: str, spacing: dict[str, Any], steps: int, to_one: bool) -> None:
    """Theirs go T // steps down wherever the next timestep is."""
    given = config(name, **{"steps_offset": 0, "set_alpha_to_one": to_one, **spacing})
    assert distance(given, steps) < TOLERANCE


@pytest.mark.parametrize("spacing", [LINE, TRAILING], ids=["linspace", "trailing"])
def test_whole_strides_that_start_half_way(spacing: dict[str, Any]) -> None:
    """Of a start with strength 0.5 the strides are those of the whole run."""
    given = config("DDIMScheduler", **spacing, set_alpha_to_one=False)
    assert distance(given, 30, begin=15) < TOLERANCE


@pytest.mark.parametrize("spacing", [{}, LINE, TRAILING], ids=["leading", "linspace", "trailing"])
@pytest.mark.parametrize("curve", [{}, K, {"use_exponential_sigmas": True}], ids=["table", "karras", "exponential"])
@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("KDPM2DiscreteScheduler", 2),
        ("KDPM2DiscreteScheduler", 10),
        ("KDPM2DiscreteScheduler", 30),
        ("KDPM2AncestralDiscreteScheduler", 3),
        ("KDPM2AncestralDiscreteScheduler", 20),
        ("DPMSolverSDEScheduler", 10),
        ("DPMSolverSDEScheduler", 30),
    ],
)
def test_second_order_single_step_solvers(
    name: str, steps: int, curve: dict[str, Any], spacing: dict[str, Any]
) -> None:
    assert distance(config(name, **spacing, **curve), steps) < TOLERANCE


@pytest.mark.parametrize("name", CLASSES)
def test_a_misspelt_field_is_named(name: str) -> None:
    with pytest.raises(ldmkit.SourceError, match="beta_shedule"):
        read_scheduler({"_class_name": name, "skip_prk_steps": True, "beta_shedule": "linear"})


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("DPMSolverMultistepScheduler", "lambda_min_clipped", -5.1),
        ("DPMSolverMultistepScheduler", "euler_at_final", True),
        ("DPMSolverMultistepScheduler", "final_sigmas_type", "sigma_min"),
        ("DPMSolverMultistepScheduler", "variance_type", "fixed_small_log"),
        ("DDPMScheduler", "variance_type", "fixed_large_log"),
        ("DDPMScheduler", "variance_type", "learned_range"),  # as fixed_large
        ("DEISMultistepScheduler", "use_exponential_sigmas", True),
        ("DEISMultistepScheduler", "use_karras_sigmas", True),
        ("PNDMScheduler", "prediction_type", "sample"),
        ("LCMScheduler", "timestep_scaling", 1.0),
        ("TCDScheduler", "rescale_betas_zero_snr", True),
        ("TCDScheduler", "beta_schedule", "linear"),
        ("LCMScheduler", "original_inference_steps", 200),
        ("DDPMScheduler", "variance_type", "fixed_large"),  # with steps_offset 1 the last step adds noise
        ("EulerDiscreteScheduler", "trained_betas", [0.01] * 500),
    ],
)
def test_a_value_without_counterpart_is_named(name: str, field: str, value: Any) -> None:
    with pytest.raises(ldmkit.SourceError, match=field):
        read_scheduler(config(name, **{field: value}))


def test_files_of_the_first_releases_are_repaired_as_diffusers_does() -> None:
    first = {"_class_name": "PNDMScheduler", **SD, "skip_prk_steps": True}
    found, notes = repaired(first, "StableDiffusionPipeline")
    assert found == first | {"steps_offset": 1} and "steps_offset" in notes[0]
    found, notes = repaired({"_class_name": "DDIMScheduler", **SD}, "StableDiffusionPipeline")
    assert (found["steps_offset"], found["clip_sample"], len(notes)) == (1, False, 2)
    found, _ = repaired({"_class_name": "PNDMScheduler", **SD}, "StableDiffusionInpaintPipeline")
    assert found["skip_prk_steps"] is True
    assert repaired(first, "StableDiffusionXLPipeline") == (first, ())


def test_a_scheduler_without_counterpart_says_both_names() -> None:
    with pytest.warns(UserWarning, match=r"DPMSolverSinglestepScheduler.*DDIM"):
        plan = read_scheduler({"_class_name": "DPMSolverSinglestepScheduler", **SD})
    assert "DDIM" in plan.notes[0]


@pytest.mark.filterwarnings("ignore:.*DPMSolverSinglestepScheduler")
@pytest.mark.parametrize("steps", [3, 10, 50])
@pytest.mark.parametrize(
    ("more", "ddim"),
    [
        ({}, {}),
        ({"prediction_type": "v_prediction"}, {"prediction_type": "v_prediction"}),
        ({"beta_schedule": "linear"}, {"beta_schedule": "linear"}),
        ({"final_sigmas_type": "sigma_min"}, {"set_alpha_to_one": False}),
    ],
)
def test_what_stands_in_is_their_ddim(more: dict[str, Any], ddim: dict[str, Any], steps: int) -> None:
    """On the same timesteps, which that class spaces by linspace; float32 of theirs: 1.3e-6 was seen."""
    found = ours({"_class_name": "DPMSolverSinglestepScheduler", **SD, **more}, steps)
    plain = {"_class_name": "DDIMScheduler", **SD, "clip_sample": False, "timestep_spacing": "linspace"}
    wanted = theirs({**plain, **ddim}, steps)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_fields_of_the_first_releases_mean_nothing() -> None:
    read = {"_class_name": "DDIMScheduler", **SD}
    plain = read_scheduler(read, "scheduler")
    assert read_scheduler({**read, "tensor_format": "pt", "timestep_values": None}, "scheduler") == plain
    with pytest.raises(ldmkit.SourceError, match="timestep_values"):
        read_scheduler({**read, "timestep_values": [1, 2]}, "scheduler")
