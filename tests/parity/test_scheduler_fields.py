"""Fields of diffusers' schedulers: whole runs equal to theirs, or a refusal that names the field.

Tolerance 1e-4 of the largest value, as their tables and states are float32; 1e-5 is what is seen.
"""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest
from ldmkit_checkpoints.diffusers_scheduler import read_scheduler
from ldmkit_checkpoints.diffusers_scheduler_fields import CLASSES, repaired
from scheduler_whole_runs import distance, ours

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


LINE = {"timestep_spacing": "linspace", "steps_offset": 0}
TRAILING = {"timestep_spacing": "trailing"}
K = {"use_karras_sigmas": True}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
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
    for steps in (10, 25):
        assert distance(config(name, **spacing, **changes), steps) < TOLERANCE, steps


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50, 999])
def test_ddim_that_ends_on_the_first_timestep(offset: int, steps: int) -> None:
    given = config("DDIMScheduler", set_alpha_to_one=False, steps_offset=offset)
    if steps == 1 and not offset:
        with pytest.raises(ldmkit.InputError, match="starts where it ends"):
            distance(given, steps)
        return
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
        config("DDIMScheduler", **LINE, set_alpha_to_one=False),
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
@pytest.mark.parametrize("steps", [5, 10, 15, 30, 50, 501, 998, 1000])
def test_steps_of_one_stride_are_equal_and_others_refused_by_name(
    name: str, spacing: dict[str, Any], steps: int
) -> None:
    """Theirs go T // steps down whatever the next timestep is."""
    given = config(name, **{"steps_offset": 0, **spacing})
    even = not spacing or steps == 1000 or (spacing == TRAILING and 1000 % steps == 0)
    if even:
        assert distance(given, steps) < TOLERANCE
        return
    with pytest.raises(ldmkit.InputError, match=f"timestep_spacing .*{steps} steps"):
        ours(given, steps)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("spacing", [{}, LINE, TRAILING], ids=["leading", "linspace", "trailing"])
@pytest.mark.parametrize("curve", [{}, K, {"use_exponential_sigmas": True}], ids=["table", "karras", "exponential"])
@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("KDPM2DiscreteScheduler", 10),
        ("KDPM2DiscreteScheduler", 30),
        ("KDPM2AncestralDiscreteScheduler", 70),
        ("DPMSolverSDEScheduler", 10),
        ("DPMSolverSDEScheduler", 30),
    ],
)
def test_second_order_single_step_solvers(
    name: str, steps: int, curve: dict[str, Any], spacing: dict[str, Any]
) -> None:
    assert distance(config(name, **spacing, **curve), steps) < TOLERANCE


def test_what_differs_in_usual_numbers_of_steps_is_said() -> None:
    with pytest.warns(UserWarning, match="fewer than 70 steps"):
        read_scheduler(config("KDPM2AncestralDiscreteScheduler"))
    with pytest.warns(UserWarning, match="use_karras_sigmas"):
        read_scheduler(config("KDPM2DiscreteScheduler", **K))


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
        ("DPMSolverMultistepScheduler", "variance_type", "learned_range"),
        ("DEISMultistepScheduler", "use_exponential_sigmas", True),
        ("DEISMultistepScheduler", "use_karras_sigmas", True),
        ("PNDMScheduler", "prediction_type", "v_prediction"),
        ("LCMScheduler", "timestep_scaling", 1.0),
        ("TCDScheduler", "rescale_betas_zero_snr", True),
        ("TCDScheduler", "beta_schedule", "linear"),
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


def test_few_steps_that_differ_are_said() -> None:
    assert any("fewer than 15 steps" in note for note in read_scheduler(config("DEISMultistepScheduler")).notes)
    assert distance(config("DEISMultistepScheduler"), 15) < TOLERANCE
    assert distance(config("HeunDiscreteScheduler"), 5) < TOLERANCE
