"""scheduler_config.json as a process, sampler and grid."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from ldmkit_processes.discrete import Discrete

from ldmkit import PartSpec, SourceError, suggest, validated
from ldmkit_checkpoints.diffusers.scheduler_fields import (
    CLASSES,
    REPLACED,
    UNCLIP,
    UNCLIP_CLASS,
    VARIANCES,
    SchedulerClass,
    options_of,
    unsupported,
)
from ldmkit_checkpoints.diffusers.scheduler_notes import differences


class SchedulerParts(NamedTuple):
    """The process, sampler and grid of a scheduler, and notes on what was replaced."""

    process: PartSpec
    sampler: PartSpec
    grid: PartSpec
    notes: tuple[str, ...] = ()


SCHEDULES = {"linear": "linear", "scaled_linear": "linear-sqrt", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
MULTISTEPS = ("dpmpp-2m", "unipc", "deis")
FROM_SIGMA = ("euler", "euler-ancestral", "heun", "lms", "dpm2", "dpmpp-sde")
"""Samplers of the schedulers whose state is x0 + sigma n: they start from sigma n, and visit fractions of timesteps."""
_NONE_LONG = ("plms", "heun", "lms", "dpm2", "deis", "dpmpp-3m")
"""Samplers that take long steps otherwise by themselves; those of a file's scheduler take them as diffusers does."""
_ZERO_SIGNAL = ("ddim", "ddpm", "lcm")
"""Samplers of the schedulers whose last alpha_bar is 0 where it is rescaled to that; the others' is 2^-24."""
TERMINAL = 2.0**-40
"""What stands for it: 1e-6 of x0 is off."""
SPACINGS = ("leading", "trailing", "linspace")


def read_scheduler(config: Mapping[str, Any], where: str = "scheduler") -> SchedulerParts:
    """Read a scheduler_config.json.

    Raises:
        SourceError: an unknown class, or a value that no process, sampler or grid supports.
    """
    name = str(config.get("_class_name"))
    notes: tuple[str, ...] = ()
    if name == UNCLIP:
        return _read_unclip(config, where)
    if name in REPLACED:
        kind = SchedulerClass("ddim", REPLACED[name] | {"timestep_spacing": "linspace"})
        notes = (f"the scheduler {name} is not supported: the default sampler is DDIM ('ddim') instead",)
        warnings.warn(notes[0], UserWarning, stacklevel=2)
    elif name in CLASSES:
        kind = CLASSES[name]
    else:
        fits = suggest(name, {*CLASSES, *REPLACED, UNCLIP})
        raise SourceError("unsupported", f"unknown scheduler {name!r}", where=where, fits=fits)
    options = options_of(config, kind, where)
    _check(name, options, where)
    process = _process(options, where, kind.sampler)
    sampler = _sampler(kind, options)
    grid = _grid(kind.sampler, options, where)
    return SchedulerParts(process, sampler, grid, notes + differences(sampler, options))


def _read_unclip(config: Mapping[str, Any], where: str) -> SchedulerParts:
    """UnCLIPScheduler: DDPM on a grid with both ends of the table, over the cosine schedule alone.

    A single step, which diffusers cannot make (it divides by 0), starts at the noisiest timestep.
    """
    options = options_of(config, UNCLIP_CLASS, where)
    native = {"schedule": "cosine", "steps": options["num_train_timesteps"]}
    native["prediction"] = PREDICTIONS[options["prediction_type"]]
    value = validated(lambda: Discrete.model_validate(native), where, SourceError, Discrete)
    process = PartSpec(type="discrete", config=value.model_dump(mode="json", exclude_defaults=True))
    sampler = {"variance": VARIANCES[options["variance_type"]], **_limits(options)}
    return SchedulerParts(process, PartSpec(type="ddpm", config=sampler), PartSpec(type="linspace"))


def _check(name: str, options: Mapping[str, Any], where: str) -> None:
    """Refuse combinations of values that are not supported together.

    DPM++ of second order uses the midpoint form here. diffusers' third-order SDE is another method: the 1/2 in its last
    weight has the opposite sign. DDPM with the larger or a learned variance ends in noise unless it ends at timestep 0.
    """
    if name == "DPMSolverMultistepScheduler":
        third = options["solver_order"] == 3
        if third and options["algorithm_type"] != "dpmsolver++":
            raise unsupported("solver_order", 3, where, (2,))
        if options["solver_type"] == "heun" and not third:
            raise unsupported("solver_type", "heun", where, ("midpoint",))
    last = options["steps_offset"] if options["timestep_spacing"] == "leading" else 0
    noisy = last or options["timestep_spacing"] == "trailing"
    if name == "DDPMScheduler" and options["variance_type"] in ("fixed_large", "learned_range") and noisy:
        raise unsupported("variance_type", options["variance_type"], where, ("fixed_small",))
    if name == "LCMScheduler" and options["num_train_timesteps"] < 8 * options["original_inference_steps"]:
        fits = "num_train_timesteps / 8 or less"
        what = f"original_inference_steps = {options['original_inference_steps']!r} is not supported"
        raise SourceError("unsupported", what, where=f"{where}.original_inference_steps", fits=fits)


def _process(options: Mapping[str, Any], where: str, sampler: str) -> PartSpec:
    schedule, prediction = options["beta_schedule"], options["prediction_type"]
    if prediction not in PREDICTIONS:
        raise unsupported("prediction_type", prediction, where, PREDICTIONS)
    if options["rescale_betas_zero_snr"] and prediction == "epsilon":
        what = "rescale_betas_zero_snr = True with prediction_type = 'epsilon' is not supported"
        fits = "v_prediction or sample: eps does not determine x0 where the signal is zero"
        raise SourceError("unsupported", what, where=f"{where}.rescale_betas_zero_snr", fits=fits)
    config: dict[str, Any] = {
        "steps": options["num_train_timesteps"],
        "prediction": PREDICTIONS[prediction],
        "zero_terminal_snr": bool(options["rescale_betas_zero_snr"]),
    }
    if sampler in _ZERO_SIGNAL and options["rescale_betas_zero_snr"]:
        config["terminal_alpha_bar"] = TERMINAL
    if options["trained_betas"] is not None:
        config |= {"schedule": "betas", "values": _betas(options, where)}
    elif schedule not in SCHEDULES:
        raise unsupported("beta_schedule", schedule, where, SCHEDULES)
    else:
        config |= {"schedule": SCHEDULES[schedule]}
        config |= {"beta_start": options["beta_start"], "beta_end": options["beta_end"]}
    if sampler in FROM_SIGMA and options["timestep_spacing"] != "leading":
        config["start"] = "noise"
    if sampler in FROM_SIGMA and options["final_sigmas_type"] == "sigma_min":
        config["finish"] = "noise"
    if sampler in MULTISTEPS and (options["use_karras_sigmas"] or options["use_exponential_sigmas"]):
        config["time_rule"] = "floor" if _cut_down(sampler, options) else "round"
    if sampler == "dpm2" and options["use_karras_sigmas"]:
        config |= {"time_rule": "round", "between": "interpolate"}
    value = validated(lambda: Discrete.model_validate(config), where, SourceError, Discrete)
    return PartSpec(type="discrete", config=value.model_dump(mode="json", exclude_defaults=True))


def _sampler(kind: SchedulerClass, options: Mapping[str, Any]) -> PartSpec:
    name, config = kind.sampler, dict(kind.config)
    if name == "dpmpp-2m" and options.get("solver_order") == 3:
        name = "dpmpp-3m"
    if name == "dpmpp-2m" and options.get("algorithm_type") == "sde-dpmsolver++":
        name = "dpmpp-2m-sde"
    if name == "dpmpp-3m":
        config = {"pairs": "heun" if options["solver_type"] == "heun" else "midpoint", "lowered": 15}
    if name == "plms" and options["prediction_type"] == "v_prediction":
        config = {"combines": "v"}
    if name == "deis":
        config = {"solver_order": options["solver_order"], "lowered": 15}
    if name == "tcd":
        config = {"timesteps": options["num_train_timesteps"]}
        config |= {key: options[key] for key in ("beta_start", "beta_end")}
    if name == "unipc":
        bh1 = options.get("solver_type", "bh2") == "bh1"
        config = {"solver_order": options.get("solver_order", 2), "variant": "bh1" if bh1 else "bh2"}
    if name == "ddpm":
        config = {"variance": VARIANCES[options["variance_type"]]}
    if name in ("ddim", "ddpm"):
        config |= _limits(options)
    if name in _NONE_LONG:
        config["long_step"] = None
    return PartSpec(type=name, config=config)


def _betas(options: Mapping[str, Any], where: str) -> Any:
    """The given betas; for a list of another length, diffusers would use the timesteps of `num_train_timesteps`."""
    values, total = options["trained_betas"], options["num_train_timesteps"]
    if isinstance(values, (list, tuple)) and len(values) != total:
        what = f"num_train_timesteps = {total!r} and {len(values)} trained_betas are not supported"
        raise SourceError("unsupported", what, where=f"{where}.trained_betas", fits=f"{total!r} values")
    return values


def _limits(options: Mapping[str, Any]) -> dict[str, Any]:
    if options.get("thresholding"):
        bound, quantile = options.get("sample_max_value", 1.0), options.get("dynamic_thresholding_ratio", 0.995)
        return {"limits": {"bound": bound, "quantile": quantile}}
    return {"limits": {"bound": options.get("clip_sample_range", 1.0)}} if options.get("clip_sample") else {}


def _grid(sampler: str, options: Mapping[str, Any], where: str) -> PartSpec:
    spacing, ends_low = options["timestep_spacing"], options["final_sigmas_type"] == "sigma_min"
    if options["final_sigmas_type"] not in ("zero", "sigma_min"):
        raise unsupported("final_sigmas_type", options["final_sigmas_type"], where, ("zero", "sigma_min"))
    if sampler in ("lcm", "tcd"):
        chosen = {"out_of": options["original_inference_steps"]}
        return PartSpec(type="trailing", config=chosen | ({"end": "first"} if sampler == "tcd" else {}))
    if spacing not in SPACINGS:
        raise unsupported("timestep_spacing", spacing, where, SPACINGS)
    for key, name in (("use_karras_sigmas", "karras"), ("use_exponential_sigmas", "exponential")):
        if options[key]:
            return _curve(name, sampler, options, where)
    config: dict[str, Any] = {}
    if spacing == "leading" and options["steps_offset"]:
        config["offset"] = options["steps_offset"]
    if sampler in MULTISTEPS and spacing != "trailing":
        config["intervals"] = "steps+1"
    elif spacing == "linspace":
        config["alone"] = "first"
        if sampler in FROM_SIGMA:
            config |= {"rounding": "none", "between": "sigma"}
    if ends_low or (sampler in ("ddim", "plms") and not options["set_alpha_to_one"]):
        config["end"] = "first"
    if sampler in ("ddim", "plms"):
        config["strides"] = "whole"
    return PartSpec(type=spacing, config=config)


def _curve(name: str, sampler: str, options: Mapping[str, Any], where: str) -> PartSpec:
    """Karras' or exponential sigmas: over the whole table, or over the range that the spacing visits."""
    config: dict[str, Any] = {}
    if options["use_karras_sigmas"] and options["use_exponential_sigmas"]:
        raise unsupported("use_exponential_sigmas", True, where, (False,))
    if sampler not in MULTISTEPS:
        config["within"] = options["timestep_spacing"]
        if config["within"] == "leading" and options["steps_offset"]:
            config["offset"] = options["steps_offset"]
    if options["final_sigmas_type"] == "sigma_min":
        if sampler in MULTISTEPS or options["sigma_min"] is not None or options["timestep_spacing"] != "linspace":
            raise unsupported("final_sigmas_type", "sigma_min", where, ("zero",))
        config["end"] = "smallest"
    for key, ours in (("sigma_max", "largest"), ("sigma_min", "smallest")):
        if options[key] is not None:
            config[ours] = options[key]
    return PartSpec(type=name, config=config)


def _cut_down(sampler: str, options: Mapping[str, Any]) -> bool:
    """Whether the network's timestep is truncated; otherwise it is rounded."""
    cosine = sampler == "dpmpp-2m" and options["beta_schedule"] == "squaredcos_cap_v2"
    return bool(options["use_exponential_sigmas"]) or cosine
