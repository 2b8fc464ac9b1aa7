"""Every field of every scheduler that is claimed, at several values, alone and in pairs: whole runs equal to
diffusers' to 1e-4, or a refusal that names a field, or (`test_scheduler_rounding`) equal to their formulas with a note.

The values are fixed; which pairs are tried is drawn from a seed, so that a run is the same everywhere.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
from ldmkit_checkpoints.diffusers.scheduler import read_scheduler
from ldmkit_checkpoints.diffusers.scheduler_fields import CLASSES
from scheduler_whole_runs import apart, ours, theirs, theirs_in_double

import ldmkit

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array_wrap__:DeprecationWarning",  # of numpy, at diffusers
    "ignore:divide by zero:RuntimeWarning:diffusers",
    "ignore:invalid value:RuntimeWarning:diffusers",
)
BASE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "skip_prk_steps": True}
STEPS = (1, 2, 3, 7, 20)
SLOW = dict.fromkeys(("LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"), (2, 7))
"""Theirs take 0.1 s to be made; these are tried in fewer runs."""
FLAGS = ("clip_sample", "thresholding", "set_alpha_to_one", "skip_prk_steps", "rescale_betas_zero_snr")
CURVES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_flow_sigmas")
SOLVERS = ("lower_order_final", "euler_at_final", "use_lu_lambdas", "predict_x0", "use_dynamic_shifting")
LEARNED = ("learned", "learned_range")
VALUES: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys((*FLAGS, *CURVES, *SOLVERS), (True, False)),
    "num_train_timesteps": (100, 400),
    "beta_start": (0.0001, 0.002),
    "beta_end": (0.02, 0.03),
    "beta_schedule": ("linear", "squaredcos_cap_v2", "laplace"),
    "trained_betas": ([0.0005 + 0.015 * i / 999 for i in range(1000)], [0.01] * 500),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "steps_offset": (0, 1, 5),
    "clip_sample_range": (0.5, 3.0),
    "dynamic_thresholding_ratio": (0.7,),
    "sample_max_value": (0.5, 3.0),
    "variance_type": ("fixed_small", "fixed_large", "fixed_small_log", "fixed_large_log", *LEARNED, None),
    "interpolation_type": ("linear", "log_linear"),
    "sigma_min": (0.1, None),
    "sigma_max": (5.0, 80.0),
    "timestep_type": ("discrete", "continuous"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "flow_shift": (3.0,),
    "time_shift_type": ("exponential", "linear"),
    "solver_order": (1, 2, 3),
    "algorithm_type": ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"),
    "solver_type": ("midpoint", "heun", "bh1", "bh2", "logrho"),
    "lambda_min_clipped": (-math.inf, -2.0),
    "disable_corrector": ([], [0]),
    "solver_p": (None,),
    "shift_terminal": (None, 0.1),
    "original_inference_steps": (20, 50, 100),
    "timestep_scaling": (1.0, 10.0),
    "noise_sampler_seed": (None, 3),
}


def fields(name: str) -> list[str]:
    """Of the installed class."""
    return sorted(set(inspect.signature(getattr(diffusers, name).__init__).parameters) - {"self", "kwargs"})


def configs(name: str) -> Iterator[dict[str, Any]]:
    known = fields(name)
    base = {"_class_name": name, **{key: value for key, value in BASE.items() if key in known}}
    for key in known:
        for value in VALUES[key]:
            yield {**base, key: value}
    draw = random.Random(name)
    for _ in range(10 if name in SLOW else 40):
        yield {**base, **{key: draw.choice(VALUES[key]) for key in draw.sample(known, 3)}}


def outcome(config: dict[str, Any], steps: int) -> str:
    """ "equal", "refused", "rounded", "not theirs" (they raise, or give NaN), or what is wrong."""
    try:
        found = ours(config, steps)
    except ldmkit.InputError:  # of the number of steps
        return "refused"
    try:
        right = theirs(config, steps)
    except (ValueError, IndexError, RuntimeError, ImportError, NotImplementedError, AssertionError):
        return "not theirs"
    if not right.isfinite().all():
        return "not theirs"
    if (distance := apart(found, right)) < 1e-4:
        return "equal"
    if apart(found, theirs_in_double(config, steps)) < 1e-4 and read_scheduler(config).notes:
        return "rounded"
    return f"{distance:.1e} apart"


@pytest.mark.parametrize("name", CLASSES)
def test_fields_alone_and_together(name: str) -> None:
    steps = SLOW.get(name, STEPS)
    equal, wrong = 0, []
    for config in configs(name):
        try:
            read_scheduler(config)
        except ldmkit.SourceError as error:
            changed = [key for key in config if key not in BASE or config[key] != BASE[key]]
            if not any(key in str(error) for key in changed):
                wrong.append((config, str(error)))
            continue
        found = [outcome(config, number) for number in steps]
        equal += found.count("equal")
        wrong += [(config, n, what) for n, what in zip(steps, found, strict=True) if "apart" in what]
    assert not wrong
    assert equal > 20 * len(steps)
