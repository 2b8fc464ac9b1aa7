"""Schedulers that are written for diffusers: its runs are ours, or what they change is said by name.

Tolerance of whole runs 1e-4 of the largest value, as theirs are float32; 2e-4 of the cosine schedule, whose last noise
levels they round, 1e-3 where the last alpha_bar is 0, of which they round a state of sigma 4096.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from ldmkit_checkpoints.diffusers.scheduler_export import exported_scheduler
from ldmkit_processes.discrete import Discrete
from scheduler_whole_runs import apart, run, theirs

import ldmkit
from ldmkit.models.spec import Defaults

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),  # of numpy, at diffusers
    pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning:diffusers"),
]
V: dict[str, Any] = {"prediction": "v"}
PROCESSES: dict[str, dict[str, Any]] = {
    "eps": {},
    "v": V,
    "zero": {**V, "zero_terminal_snr": True},
    "x0": {"prediction": "x0", "schedule": "cosine"},
    "sqrt": {"schedule": "sqrt", "beta_start": 1e-6, "beta_end": 4e-4},
    "zero-betas": {**V, "zero_terminal_snr": True, "schedule": "betas", "steps": 400, "values": [0.01] * 400},
    "shifted-cosine": {"schedule": "cosine", "cosine_s": 0.02},
    "noise": {"start": "noise"},
}
GRIDS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("leading", "trailing", "linspace", "ldm-ddim", "karras", "exponential", "log-snr")),
    ("leading", {"offset": 1, "end": "first"}),
    ("linspace", {"intervals": "steps+1"}),
    ("linspace", {"rounding": "none", "between": "sigma"}),
    ("karras", {"largest": 5.0, "smallest": 0.1}),
    ("karras", {"within": "leading"}),
    ("flow-shift", {}),
    ("explicit", {"values": [9.0, 3.0, 0.5, 0.0]}),
]
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("ddim", {"eta": 1.0}),
    ("ddim", {"limits": {"bound": 0.7}}),
    ("ddpm", {"variance": "large"}),
    ("unipc", {"solver_order": 3, "variant": "bh1"}),
    ("unipc", {"corrector": False}),
    ("deis", {"solver_order": 2, "lowered": 15, "long_step": None}),
    ("dpmpp-3m", {"pairs": "midpoint", "lowered": 15, "long_step": None}),
    ("dpmpp-2m-sde", {"eta": 0.5}),
    ("dpm2", {"eta": 0.5}),
    ("dpm2", {"eta": 1.0}),
    ("lms", {"steps_used": 2}),
    ("tcd", {"gamma": 0.6}),
]


def spec_of(process: dict[str, Any], sampler: str, own: dict[str, Any], grid: str, more: dict[str, Any]) -> Any:
    part = ldmkit.PartSpec
    return ldmkit.PipelineSpec(
        codec=part(type="identity"),
        denoiser=part(type="unet"),
        process=part(type="discrete", config=process),
        defaults=Defaults(sampler=part(type=sampler, config=own), grid=part(type=grid, config=more), steps=20),
    )


def compared(spec: Any) -> str:
    """ "same" (to the tolerance), "said" or what is wrong."""
    found = exported_scheduler(spec)
    sampler, grid = spec.defaults.sampler, spec.defaults.grid
    if found.lost:
        named = all(word in found.lost for word in (repr(sampler.type), repr(grid.type), found.config["_class_name"]))
        return "said" if named else found.lost
    process = Discrete.of(spec.process.config)
    drawn = [ldmkit.get(kind, part.type).of(part.config) for kind, part in (("sampler", sampler), ("grid", grid))]
    limit = 1e-3 if process.zero_terminal_snr else 2e-4 if process.schedule == "cosine" else 1e-4
    far = apart(run(process, *drawn, 20), theirs(found.config, 20, **found.arguments))
    return "same" if far < limit else f"{far:.1e} apart: {found.config}"


@pytest.mark.parametrize("process", PROCESSES)
def test_every_sampler_on_every_grid(process: str) -> None:
    """Of most processes a third of the pairs."""
    pairs = [(name, {}) for name in ldmkit.components("sampler")] + OPTIONS
    every = list(itertools.product(pairs, GRIDS))
    place = list(PROCESSES).index(process)
    chosen = every if process in ("eps", "zero") else every[place % 3 :: 3]
    found = {
        (name, str(own), grid, str(more)): compared(spec_of(PROCESSES[process], name, own, grid, more))
        for (name, own), (grid, more) in chosen
    }
    assert [(case, what) for case, what in found.items() if what not in ("same", "said")] == []
    assert list(found.values()).count("same") >= len(chosen) // 20


@pytest.mark.parametrize(
    ("sampler", "grid", "name", "words"),
    [
        ("restart", "karras", "EulerDiscreteScheduler", "no scheduler for 'restart'"),
        ("ipndm", "leading", "DDIMScheduler", "no scheduler for 'ipndm'"),
        ("ddim", "log-snr", "DDIMScheduler", "noise level 0"),
        ("deis", "karras", "DEISMultistepScheduler", "noise level 0"),
        ("dpmpp-2m", "leading", "DPMSolverMultistepScheduler", "noise level 1"),
        ("dpmpp-2m", "karras", "DPMSolverMultistepScheduler", "timestep 1 is 916 in place of 916.284"),
        ("euler", "trailing", "EulerDiscreteScheduler", "starts from noise times 14.6146 in place of 14.6488"),
        ("ddim", "trailing", "DDIMScheduler", "whole runs of 30 steps end"),
    ],
)
def test_what_is_changed_is_named(sampler: str, grid: str, name: str, words: str) -> None:
    spec = spec_of({}, sampler, {}, grid, {})
    spec = spec.model_copy(update={"defaults": spec.defaults.model_copy(update={"steps": 30})})
    found = exported_scheduler(spec)
    assert found.config["_class_name"] == name and words in found.lost


def test_karras_noise_levels_of_ddim_are_those_of_euler() -> None:
    """Without noise both take the same steps, and one of the classes has the grid."""
    found = exported_scheduler(spec_of({}, "ddim", {}, "karras", {}))
    assert found.config["_class_name"] == "EulerDiscreteScheduler" and not found.lost


@pytest.mark.parametrize(
    ("process", "sampler", "words"),
    [
        ("zero", "heun", "HeunDiscreteScheduler of diffusers has no zero terminal SNR"),
        ("x0", "dpm2", "KDPM2DiscreteScheduler cannot run a network that predicts x0"),
        ("x0", "euler-ancestral", "EulerAncestralDiscreteScheduler cannot run a network that predicts x0"),
    ],
)
def test_what_a_class_cannot_run_is_not_written(process: str, sampler: str, words: str) -> None:
    found = exported_scheduler(spec_of(PROCESSES[process], sampler, {}, "leading", {}))
    assert words in found.lost
    assert theirs(found.config, 5).isfinite().all()


def test_unipc_of_bh1_is_nan_there() -> None:
    found = exported_scheduler(spec_of({}, "unipc", {"variant": "bh1"}, "trailing", {}))
    assert "NaN" in found.lost and theirs(found.config, 5).isfinite().all()
    bad = {**found.config, "_class_name": "UniPCMultistepScheduler", "solver_type": "bh1", "solver_order": 2}
    assert not theirs(bad, 5).isfinite().all()


def test_what_every_call_has_to_be_told() -> None:
    assert exported_scheduler(spec_of({}, "ddim", {"eta": 0.4}, "leading", {})).arguments == {"eta": 0.4}
    assert exported_scheduler(spec_of({}, "tcd", {}, "trailing", {"out_of": 50})).arguments == {"eta": 0.3}
    assert exported_scheduler(spec_of({}, "ddim", {}, "leading", {})).arguments == {}


def test_a_table_that_float32_does_not_hold_is_refused() -> None:
    steep = {"schedule": "sqrt", "beta_start": 0.0015, "beta_end": 0.0195}
    with pytest.raises(ldmkit.SourceError, match="float32"):
        exported_scheduler(spec_of(steep, "ddim", {}, "leading", {}))


def test_what_a_pipeline_repairs_when_it_loads_is_counted() -> None:
    """Stable Diffusion's takes steps_offset 1 whatever the file says."""
    spec = spec_of({}, "ddim", {}, "leading", {})
    assert not exported_scheduler(spec).lost
    assert "noise level 0" in exported_scheduler(spec, pipeline="StableDiffusionPipeline").lost
