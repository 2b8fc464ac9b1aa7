"""A diffusers scheduler_config.json as a process, and the sampler and grid that its class means. And back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ldmkit_processes.discrete import Discrete

from ldmkit.errors import SourceError, suggest
from ldmkit.spec import PartSpec
from ldmkit.value import validated


class Plan(NamedTuple):
    """What a scheduler stands for, and what was replaced by something else."""

    process: PartSpec
    sampler: PartSpec
    grid: PartSpec
    notes: tuple[str, ...] = ()


class _Class(NamedTuple):
    """Defaults of a scheduler class that differ from the common ones, options that have one value here, and the
    sampler's config where the class alone decides it."""

    sampler: str
    defaults: Mapping[str, Any] = {}
    only: Mapping[str, tuple[Any, ...]] = {}
    config: Mapping[str, Any] = {}


_COMMON: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
    "timestep_spacing": "linspace",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "final_sigmas_type": "zero",
    "set_alpha_to_one": True,
}
_LEADING = {"timestep_spacing": "leading"}
_CLIPPED = {**_LEADING, "clip_sample": True}
_UNUSUAL = {"use_beta_sigmas": (False,), "use_flow_sigmas": (False,)}
_PLAIN = {**_UNUSUAL, "thresholding": (False,), "clip_sample": (False,)}
_MULTISTEP = {**_PLAIN, "use_lu_lambdas": (False,), "use_dynamic_shifting": (False,), "lower_order_final": (True,)}

_SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012}
_DISTILLED = {**_SD_BETAS, "beta_schedule": "scaled_linear"}

_CLASSES: dict[str, _Class] = {
    "DDIMScheduler": _Class("ddim", _CLIPPED, _UNUSUAL),
    "DDPMScheduler": _Class("ddpm", _CLIPPED, {**_UNUSUAL, "variance_type": ("fixed_small", "fixed_large")}),
    "PNDMScheduler": _Class(
        "plms", {**_LEADING, "set_alpha_to_one": False, "skip_prk_steps": False}, {"skip_prk_steps": (True,)}
    ),
    "EulerDiscreteScheduler": _Class(
        "euler", {}, {**_PLAIN, "interpolation_type": ("linear",), "timestep_type": ("discrete",)}
    ),
    "EulerAncestralDiscreteScheduler": _Class("euler-ancestral", {}, _PLAIN),
    "HeunDiscreteScheduler": _Class("heun", {"beta_start": 0.00085, "beta_end": 0.012}, _PLAIN),
    "DPMSolverMultistepScheduler": _Class(
        "dpmpp-2m",
        {},
        {
            **_MULTISTEP,
            "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
            "solver_order": (2, 3),
            "solver_type": ("midpoint", "heun", "logrho", "bh1", "bh2"),
        },
    ),
    "UniPCMultistepScheduler": _Class(
        "unipc",
        {},
        {
            **_MULTISTEP,
            "predict_x0": (True,),
            "solver_order": (1, 2, 3),
            "disable_corrector": ([],),
            "solver_p": (None,),
        },
    ),
    "DEISMultistepScheduler": _Class(
        "deis",
        {"final_sigmas_type": "sigma_min"},
        {**_MULTISTEP, "algorithm_type": ("deis",), "solver_type": ("logrho",), "solver_order": (1, 2, 3)},
    ),
    "LMSDiscreteScheduler": _Class("lms", {}, _PLAIN),
    "KDPM2DiscreteScheduler": _Class("dpm2", _SD_BETAS, _PLAIN),
    "KDPM2AncestralDiscreteScheduler": _Class("dpm2", _SD_BETAS, _PLAIN, {"eta": 1.0}),
    "DPMSolverSDEScheduler": _Class("dpmpp-sde", _SD_BETAS, _PLAIN),
    "LCMScheduler": _Class("lcm", _DISTILLED, _PLAIN),
    "TCDScheduler": _Class("tcd", _DISTILLED, _PLAIN),
}
_REPLACED = {"DPMSolverSinglestepScheduler": "linspace"}
"""Other classes over the same tables of timesteps: the process is read, the sampler is DDIM in their place."""

_SCHEDULES = {"linear": "linear", "scaled_linear": "linear-sqrt", "squaredcos_cap_v2": "cosine"}
_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_SPACINGS = ("leading", "trailing", "linspace")


def read_scheduler(config: Mapping[str, Any], where: str = "scheduler") -> Plan:
    """The plan of a scheduler_config.json.

    Raises:
        SourceError: a class that is not known, or a value that no process, sampler or grid here has.
    """
    name = str(config.get("_class_name"))
    notes: tuple[str, ...] = ()
    if name in _REPLACED:
        kind = _Class("ddim", {"timestep_spacing": _REPLACED[name]})
        notes = (f"{name} has no counterpart here: the default sampler is DDIM",)
    elif name in _CLASSES:
        kind = _CLASSES[name]
    else:
        fits = suggest(name, {*_CLASSES, *_REPLACED})
        raise SourceError("unsupported", f"the scheduler {name!r} is not known", where=where, fits=fits)
    options = {**_COMMON, **kind.defaults, **{k: v for k, v in config.items() if not k.startswith("_")}}
    for key, allowed in kind.only.items():
        if key in options and options[key] not in allowed:
            raise _unsupported(key, options[key], where, allowed)
    if name == "DPMSolverMultistepScheduler":
        notes += _start_of_multistep(options, where)
    process = _process(options, where)
    sampler = _sampler(kind, options)
    grid, more = _grid(kind.sampler, options, where)
    return Plan(process, sampler, grid, notes + more)


def _start_of_multistep(options: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """DPM++ of two estimates is the midpoint form here, and that of three starts with the other one.

    diffusers' own SDE of three estimates is another method: the 1/2 in its last weight has the other sign.
    """
    third, heun = options.get("solver_order", 2) == 3, options.get("solver_type", "midpoint") == "heun"
    if third and options.get("algorithm_type", "dpmsolver++") != "dpmsolver++":
        raise _unsupported("solver_order", 3, where, (2,))
    if heun and not third:
        raise _unsupported("solver_type", "heun", where, ("midpoint",))
    return ("solver_order 3 with solver_type midpoint: its second step is that of 'heun' here",) if third > heun else ()


def _unsupported(key: str, value: Any, where: str, allowed: Any) -> SourceError:
    fits = " or ".join(repr(v) for v in allowed)
    return SourceError("unsupported", f"{key} = {value!r} is not supported", where=f"{where}.{key}", fits=fits)


def _process(options: Mapping[str, Any], where: str) -> PartSpec:
    schedule, prediction = options["beta_schedule"], options["prediction_type"]
    if prediction not in _PREDICTIONS:
        raise _unsupported("prediction_type", prediction, where, _PREDICTIONS)
    config: dict[str, Any] = {
        "steps": options["num_train_timesteps"],
        "prediction": _PREDICTIONS[prediction],
        "zero_terminal_snr": bool(options["rescale_betas_zero_snr"]),
    }
    if options["trained_betas"] is not None:
        config |= {"schedule": "betas", "values": options["trained_betas"], "steps": len(options["trained_betas"])}
    elif schedule not in _SCHEDULES:
        raise _unsupported("beta_schedule", schedule, where, _SCHEDULES)
    else:
        config |= {"schedule": _SCHEDULES[schedule]}
        config |= {"beta_start": options["beta_start"], "beta_end": options["beta_end"]}
    value = validated(lambda: Discrete.model_validate(config), where, SourceError, Discrete)
    return PartSpec(type="discrete", config=value.model_dump(mode="json", exclude_defaults=True))


def _sampler(kind: _Class, options: Mapping[str, Any]) -> PartSpec:
    name, config = kind.sampler, dict(kind.config)
    if name == "dpmpp-2m" and options.get("solver_order") == 3:
        name = "dpmpp-3m"
    if name == "dpmpp-2m" and options.get("algorithm_type") == "sde-dpmsolver++":
        name = "dpmpp-2m-sde"
    if name == "deis":
        config = {"solver_order": options.get("solver_order", 2)}
    if name == "tcd":
        config = {"timesteps": options["num_train_timesteps"]}
        config |= {key: options[key] for key in ("beta_start", "beta_end")}
    if name == "unipc":
        bh1 = options.get("solver_type", "bh2") == "bh1"
        config = {"solver_order": options.get("solver_order", 2), "variant": "bh1" if bh1 else "bh2"}
    if name == "ddpm":
        config = {"variance": options.get("variance_type", "fixed_small").removeprefix("fixed_")}
    if name in ("ddim", "ddpm"):
        config |= _limits(options)
    return PartSpec(type=name, config=config)


def _limits(options: Mapping[str, Any]) -> dict[str, Any]:
    if options.get("thresholding"):
        bound, quantile = options.get("sample_max_value", 1.0), options.get("dynamic_thresholding_ratio", 0.995)
        return {"limits": {"bound": bound, "quantile": quantile}}
    return {"limits": {"bound": options.get("clip_sample_range", 1.0)}} if options.get("clip_sample") else {}


def _grid(sampler: str, options: Mapping[str, Any], where: str) -> tuple[PartSpec, tuple[str, ...]]:
    spacing, ends_low = options["timestep_spacing"], options["final_sigmas_type"] == "sigma_min"
    if options["final_sigmas_type"] not in ("zero", "sigma_min"):
        raise _unsupported("final_sigmas_type", options["final_sigmas_type"], where, ("zero", "sigma_min"))
    if sampler in ("lcm", "tcd"):
        note = (
            f"the timesteps of {sampler} are those of the grid 'trailing', at most 20 from diffusers' choice out of 50"
        )
        return PartSpec(type="trailing", config={"end": "first"} if sampler == "tcd" else {}), (note,)
    for key, name in (("use_karras_sigmas", "karras"), ("use_exponential_sigmas", "exponential")):
        if options[key]:
            return PartSpec(type=name, config={"end": "sigma_min"} if ends_low else {}), ()
    if spacing not in _SPACINGS:
        raise _unsupported("timestep_spacing", spacing, where, _SPACINGS)
    config: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    if spacing == "leading":
        config["offset"] = options["steps_offset"]
    if sampler in ("dpmpp-2m", "unipc", "deis") and spacing != "trailing":
        config["intervals"] = "steps+1"
    if sampler in ("ddim", "plms") and not options["set_alpha_to_one"]:
        if spacing == "leading" and not options["steps_offset"]:
            notes = ("set_alpha_to_one false without steps_offset: the last step would go nowhere; it goes to 0",)
        else:
            config["end"] = "first"
    if ends_low:
        config["end"] = "first"
    return PartSpec(type=spacing, config=config), notes


def write_scheduler(process: Discrete, sampler: PartSpec, grid: PartSpec) -> dict[str, Any]:
    """scheduler_config.json for a process with the class that stands for a sampler (DDIM where none does).

    Raises:
        SourceError: a schedule that diffusers does not have.
    """
    schedules = {ours: theirs for theirs, ours in _SCHEDULES.items()}
    names = {kind.sampler: name for name, kind in reversed(_CLASSES.items())}
    names |= dict.fromkeys(("dpmpp-2m-sde", "dpmpp-3m"), "DPMSolverMultistepScheduler")
    name = names.get(sampler.type, "DDIMScheduler")
    if sampler.type == "dpm2" and sampler.config.get("eta"):
        name = "KDPM2AncestralDiscreteScheduler"
    config: dict[str, Any] = {
        "_class_name": name,
        "num_train_timesteps": process.steps,
        "prediction_type": {ours: theirs for theirs, ours in _PREDICTIONS.items()}[process.prediction],
    }
    if process.schedule in schedules:
        betas = {"beta_schedule": schedules[process.schedule]}
        config |= betas | {"beta_start": process.beta_start, "beta_end": process.beta_end}
    else:
        config |= {"trained_betas": list(process.table.betas)}
    if process.zero_terminal_snr:
        config["rescale_betas_zero_snr"] = True
    if name in ("DDIMScheduler", "DDPMScheduler"):
        config |= _written_limits(sampler.config.get("limits"))
    if sampler.type == "ddpm":
        config["variance_type"] = f"fixed_{sampler.config.get('variance', 'small')}"
    if name == "PNDMScheduler":
        config["skip_prk_steps"] = True
    if sampler.type == "dpmpp-2m-sde":
        config["algorithm_type"] = "sde-dpmsolver++"
    if sampler.type in ("dpmpp-3m", "deis"):
        config |= {"solver_order": sampler.config.get("solver_order", 3)}
    if sampler.type == "dpmpp-3m":
        config["solver_type"] = "heun"
    return config | _written_grid(name, grid)


def _written_limits(limits: Mapping[str, Any] | None) -> dict[str, Any]:
    if limits is None:
        return {"clip_sample": False}
    bound, quantile = limits.get("bound", 1.0), limits.get("quantile")
    if quantile is None:
        return {"clip_sample": True, "clip_sample_range": bound}
    dynamic = {"thresholding": True, "sample_max_value": bound, "dynamic_thresholding_ratio": quantile}
    return {"clip_sample": False, **dynamic}


def _written_grid(name: str, grid: PartSpec) -> dict[str, Any]:
    if grid.type in ("karras", "exponential"):
        return {f"use_{grid.type}_sigmas": True}
    spacing = {"ldm-ddim": "leading"}.get(grid.type, grid.type)
    config: dict[str, Any] = {"timestep_spacing": spacing if spacing in _SPACINGS else "leading"}
    offset = 1 if grid.type == "ldm-ddim" else grid.config.get("offset", 0)
    ends_first = grid.type == "ldm-ddim" or grid.config.get("end") == "first"
    if offset:
        config["steps_offset"] = offset
    if name in ("DDIMScheduler", "PNDMScheduler"):
        config["set_alpha_to_one"] = not ends_first
    elif ends_first and name != "DEISMultistepScheduler":  # that one always does
        config["final_sigmas_type"] = "sigma_min"
    return config
