"""Where diffusers' schedulers in float32 leave their own formulas by more than 1e-4: ours keep to the formulas, and the
file's notes name the field and how far apart both are.

Their formulas in double are run by their own code; ours are then the same to 1e-6.
"""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
from ldmkit_checkpoints.diffusers.scheduler import read_scheduler
from scheduler_whole_runs import apart, ours, theirs, theirs_in_double

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
EXPONENTIAL = {"use_exponential_sigmas": True}
CASES: list[tuple[str, dict[str, Any], int, float]] = [
    ("EulerDiscreteScheduler", ZERO, 1, 1e-3),
    ("EulerAncestralDiscreteScheduler", ZERO, 2, 1e-3),
    ("DPMSolverMultistepScheduler", EXPONENTIAL, 2, 1e-3),
    ("UniPCMultistepScheduler", EXPONENTIAL, 2, 1e-3),
    ("HeunDiscreteScheduler", {"beta_schedule": "squaredcos_cap_v2"}, 2, 0.1),
    ("HeunDiscreteScheduler", {"beta_end": 0.03}, 2, 5e-3),
    ("DEISMultistepScheduler", {"solver_order": 3, "timestep_spacing": "trailing"}, 50, 2e-4),
    ("DEISMultistepScheduler", {"solver_order": 3}, 200, 2e-3),
    ("DEISMultistepScheduler", {"solver_order": 3}, 998, 0.2),
]


@pytest.mark.parametrize(("name", "changes", "steps", "largest"), CASES)
def test_what_their_rounding_changes_is_said(name: str, changes: dict[str, Any], steps: int, largest: float) -> None:
    given = {"_class_name": name, **SD, **changes}
    found = ours(given, steps)
    assert apart(found, theirs_in_double(given, steps)) < 1e-6
    assert 1e-4 < apart(found, theirs(given, steps)) < largest
    named = (next(iter(changes)), "heun")
    assert any(note.startswith(named) and "diffusers" in note for note in read_scheduler(given).notes)


def test_one_step_too_many_is_said() -> None:
    """numpy.arange(1000, 0, -1000 / 61) has 62 values."""
    given = {"_class_name": "EulerDiscreteScheduler", **SD, "timestep_spacing": "trailing"}
    (note,) = read_scheduler(given).notes
    assert "timestep_spacing trailing: for 62 numbers of steps (61, 103, 121 ...)" in note
    assert read_scheduler({**given, "timestep_spacing": "leading"}).notes == ()


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DDIMScheduler", "UniPCMultistepScheduler"])
@pytest.mark.parametrize(("total", "steps"), [(1000, 61), (1000, 499), (999, 13), (999, 30)])
def test_one_step_too_many_is_a_slip_of_rounding(
    name: str, total: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their last step is asked of the network at timestep -1, for which the table's noisiest entry is read: a run of
    their formula without that step is what ours is equal to."""
    given = {"_class_name": name, **SD, "timestep_spacing": "trailing", "num_train_timesteps": total}
    scheduler = getattr(diffusers, name).from_config(given)
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == steps + 1 and float(scheduler.timesteps[-1]) == -1
    arange = np.arange

    def without(*given: Any, **more: Any) -> Any:
        made = arange(*given, **more)
        return made[:steps] if len(given) == 3 and given[1] == 0 and given[2] < 0 else made

    monkeypatch.setattr(np, "arange", without)
    assert apart(ours(given, steps), theirs(given, steps)) < 3e-5  # float32 of theirs: 1.4e-5 was seen in 499 steps


@pytest.mark.parametrize("name", ["PNDMScheduler", "LMSDiscreteScheduler"])
def test_runs_from_a_picture_that_differ_are_said(name: str) -> None:
    given = {"_class_name": name, **SD, **({"skip_prk_steps": True} if name == "PNDMScheduler" else {})}
    assert any("strength below 1" in note for note in read_scheduler(given).notes)
    assert not any("strength" in note for note in read_scheduler({"_class_name": "DDIMScheduler", **SD}).notes)
