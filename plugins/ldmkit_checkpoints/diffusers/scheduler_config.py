"""A process, a sampler and a grid as a diffusers scheduler_config.json: the nearest one, right or not.

`scheduler_export` reads it again and tells what it changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ldmkit_processes.discrete import Discrete

from ldmkit import PartSpec
from ldmkit_checkpoints.diffusers.scheduler import PREDICTIONS, SCHEDULES, SPACINGS
from ldmkit_checkpoints.diffusers.scheduler_fields import CLASSES

_CURVES = ("karras", "exponential")
_LIMITED = ("EulerDiscreteScheduler", "UniPCMultistepScheduler")
"""Classes whose curves can be given their ends."""

_NO_X0 = (
    *("EulerAncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
    *("DPMSolverSDEScheduler", "PNDMScheduler"),
)
"""Classes that refuse, when they run, a network that predicts x0."""


def class_of(sampler: PartSpec) -> str | None:
    """The class that stands for a sampler; None where diffusers has none."""
    names = {kind.sampler: name for name, kind in reversed(CLASSES.items())}
    names |= dict.fromkeys(("dpmpp-2m-sde", "dpmpp-3m"), "DPMSolverMultistepScheduler")
    if sampler.type == "dpm2" and sampler.config.get("eta"):
        return "KDPM2AncestralDiscreteScheduler"
    return names.get(sampler.type)


def cannot_run(config: Mapping[str, Any]) -> str:
    """Why diffusers itself fails with a config, which it loads; empty where it does not."""
    name = config["_class_name"]
    if name in _NO_X0 and config["prediction_type"] == "sample":
        return f"diffusers' {name} cannot run a network that predicts x0"
    if config.get("solver_type") == "bh1" and config.get("final_sigmas_type", "zero") == "zero":
        return f"diffusers' {name} makes NaN of solver_type bh1 in a run that ends at 0"
    return ""


def candidates(process: Discrete, sampler: PartSpec, grid: PartSpec) -> Iterator[dict[str, Any]]:
    """Configs that may stand for a run's defaults, nearest first; the last ones have another grid, or are of another
    class.
    """
    plain, own = PartSpec(type="leading"), class_of(sampler)
    if own is not None:
        yield scheduler_config(own, process, sampler, grid)
        if grid.type in _CURVES and own in _LIMITED:
            yield scheduler_config(own, process, sampler, _limited(process, grid))
        if sampler.type == "ddim" and grid.type in _CURVES and not sampler.config:  # the same steps as Euler's
            euler = PartSpec(type="euler")
            yield scheduler_config("EulerDiscreteScheduler", process, euler, _limited(process, grid))
        yield scheduler_config(own, process, sampler, plain)
    name = "EulerDiscreteScheduler" if grid.type in _CURVES else "DDIMScheduler"
    yield scheduler_config(name, process, PartSpec(type=CLASSES[name].sampler), grid)
    yield scheduler_config("DDIMScheduler", process, PartSpec(type="ddim"), plain)


def _limited(process: Discrete, grid: PartSpec) -> PartSpec:
    """The same curve by its ends: it then has the start of the spacing "leading", unit noise at the data's variance."""
    ends = {"largest": process.sigma_max, "smallest": process.sigma_min}
    return PartSpec(type=grid.type, config={**ends, **grid.config, "within": "leading"})


def scheduler_config(name: str, process: Discrete, sampler: PartSpec, grid: PartSpec) -> dict[str, Any]:
    """scheduler_config.json of a class, with what its fields can say of a process, a sampler and a grid."""
    config: dict[str, Any] = {
        "_class_name": name,
        "num_train_timesteps": process.steps,
        "prediction_type": {ours: theirs for theirs, ours in PREDICTIONS.items()}[process.prediction],
        **_betas(process),
    }
    if process.zero_terminal_snr:
        config["rescale_betas_zero_snr"] = True
    if name in ("DDIMScheduler", "DDPMScheduler"):
        config |= _limits(sampler.config.get("limits"))
    return config | _solver(name, sampler) | _grid(name, grid)


def _betas(process: Discrete) -> dict[str, Any]:
    schedules = {ours: theirs for theirs, ours in SCHEDULES.items()}
    known = process.schedule in schedules
    if known and (process.schedule != "cosine" or process.cosine_s == Discrete.model_fields["cosine_s"].default):
        ends = {"beta_start": process.beta_start, "beta_end": process.beta_end}
        return {"beta_schedule": schedules[process.schedule], **ends}
    plain = process.model_copy(update={"zero_terminal_snr": False})  # they are rescaled when they are read
    return {"trained_betas": list(plain.table.betas)}


def _solver(name: str, sampler: PartSpec) -> dict[str, Any]:
    kind, options = sampler.type, sampler.config
    if kind == "ddpm":
        variance = options.get("variance", "small")
        return {"variance_type": "learned_range" if variance == "learned" else f"fixed_{variance}"}
    if name == "PNDMScheduler":
        return {"skip_prk_steps": True}
    if kind == "dpmpp-2m-sde":
        return {"algorithm_type": "sde-dpmsolver++"}
    if kind == "dpmpp-3m":
        return {"solver_order": 3, "solver_type": options.get("pairs", "heun")}
    if kind == "deis":
        return {"solver_order": options.get("solver_order", 3)}
    if kind == "unipc":
        return {"solver_order": options.get("solver_order", 2), "solver_type": options.get("variant", "bh2")}
    return {}


def _limits(limits: Mapping[str, Any] | None) -> dict[str, Any]:
    if limits is None:
        return {"clip_sample": False}
    bound, quantile = limits.get("bound", 1.0), limits.get("quantile")
    if quantile is None:
        return {"clip_sample": True, "clip_sample_range": bound}
    dynamic = {"thresholding": True, "sample_max_value": bound, "dynamic_thresholding_ratio": quantile}
    return {"clip_sample": False, **dynamic}


def _grid(name: str, grid: PartSpec) -> dict[str, Any]:
    if grid.type in _CURVES:
        return _curve(grid)
    spacing = {"ldm-ddim": "leading"}.get(grid.type, grid.type)
    config: dict[str, Any] = {"timestep_spacing": spacing if spacing in SPACINGS else "leading"}
    offset = 1 if grid.type == "ldm-ddim" else grid.config.get("offset", 0)
    ends_first = grid.config.get("end", "first" if grid.type == "ldm-ddim" else "zero") == "first"
    if offset:
        config["steps_offset"] = offset
    if grid.config.get("out_of"):
        config["original_inference_steps"] = grid.config["out_of"]
    if name in ("DDIMScheduler", "PNDMScheduler"):
        config["set_alpha_to_one"] = not ends_first
    elif ends_first and name != "DEISMultistepScheduler":  # that one always does
        config["final_sigmas_type"] = "sigma_min"
    return config


def _curve(grid: PartSpec) -> dict[str, Any]:
    within = grid.config.get("within", "all")
    config: dict[str, Any] = {f"use_{grid.type}_sigmas": True}
    config |= {} if within == "all" else {"timestep_spacing": within}
    keys = {"offset": "steps_offset", "largest": "sigma_max", "smallest": "sigma_min"}
    given = {theirs: grid.config[ours] for ours, theirs in keys.items() if grid.config.get(ours)}
    return config | given | ({"final_sigmas_type": "sigma_min"} if grid.config.get("end") == "smallest" else {})
