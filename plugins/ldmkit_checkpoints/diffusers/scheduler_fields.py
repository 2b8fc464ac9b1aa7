"""Fields of diffusers' schedulers: the defaults of each class, and the supported values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from ldmkit import SourceError, suggest


class SchedulerClass(NamedTuple):
    """The sampler of a scheduler class, the defaults of its fields (diffusers 0.42.1), and the fields of which only
    some values are supported; `config` is the sampler's config as far as the class decides it."""

    sampler: str
    defaults: Mapping[str, Any]
    only: Mapping[str, tuple[Any, ...]] = {}
    config: Mapping[str, Any] = {}


_BETAS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
}
_ZERO_SNR: dict[str, Any] = {"rescale_betas_zero_snr": False}
_CURVES = dict.fromkeys(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"), False)
_CLIP: dict[str, Any] = {"clip_sample": False, "clip_sample_range": 1.0}
_DYNAMIC: dict[str, Any] = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012}
_PIXEL = {**_BETAS, **_ZERO_SNR, **_CLIP, **_DYNAMIC, "clip_sample": True, "timestep_spacing": "leading"}
_FLOW: dict[str, Any] = {
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}
_SOLVER: dict[str, Any] = {**_BETAS, **_DYNAMIC, **_CURVES, **_FLOW, "solver_order": 2, "lower_order_final": True}
_DPM: dict[str, Any] = {
    **_SOLVER,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "euler_at_final": False,
    "use_lu_lambdas": False,
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -math.inf,
    "variance_type": None,
    **_ZERO_SNR,
}
_DISTILLED: dict[str, Any] = {
    **_PIXEL,
    **_SD_BETAS,
    "beta_schedule": "scaled_linear",
    "original_inference_steps": 50,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "timestep_scaling": 10.0,
}

_UNUSUAL = {"use_beta_sigmas": (False, None), "use_flow_sigmas": (False, None)}
_PLAIN = {**_UNUSUAL, "thresholding": (False,), "clip_sample": (False,)}
_MULTISTEP = {
    **_PLAIN,
    "use_dynamic_shifting": (False,),
    "lower_order_final": (True,),
}

VARIANCES: dict[str | None, str] = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    None: "small",
    "fixed_large": "large",
    "learned_range": "learned",
}
"""DDPMScheduler's `variance_type` -> the variance of `ddpm`. Its other two make NaN: a root of a logarithm below 0
("fixed_large_log"), and of whatever the network gives ("learned")."""

CLASSES: dict[str, SchedulerClass] = {
    "DDIMScheduler": SchedulerClass("ddim", {**_PIXEL, "set_alpha_to_one": True}, _UNUSUAL),
    "DDPMScheduler": SchedulerClass(
        "ddpm",
        {**_PIXEL, "variance_type": "fixed_small"},
        {**_UNUSUAL, "variance_type": tuple(VARIANCES)},
    ),
    "PNDMScheduler": SchedulerClass(
        "plms",
        {**_BETAS, "timestep_spacing": "leading", "set_alpha_to_one": False, "skip_prk_steps": False},
        {**_PLAIN, "skip_prk_steps": (True,), "prediction_type": ("epsilon", "v_prediction")},
    ),
    "EulerDiscreteScheduler": SchedulerClass(
        "euler",
        {
            **_BETAS,
            **_ZERO_SNR,
            **_CURVES,
            "interpolation_type": "linear",
            "sigma_min": None,
            "sigma_max": None,
            "timestep_type": "discrete",
            "final_sigmas_type": "zero",
        },
        {**_PLAIN, "interpolation_type": ("linear",), "timestep_type": ("discrete",)},
    ),
    "EulerAncestralDiscreteScheduler": SchedulerClass("euler-ancestral", {**_BETAS, **_ZERO_SNR}, _PLAIN),
    "HeunDiscreteScheduler": SchedulerClass("heun", {**_BETAS, **_CURVES, **_CLIP, **_SD_BETAS}, _PLAIN),
    "DPMSolverMultistepScheduler": SchedulerClass(
        "dpmpp-2m",
        _DPM,
        {
            **_MULTISTEP,
            "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
            "solver_order": (2, 3),
            "solver_type": ("midpoint", "heun", "logrho", "bh1", "bh2"),
            "use_lu_lambdas": (False,),
            "euler_at_final": (False,),
            "final_sigmas_type": ("zero",),
            "variance_type": (None, "fixed_small", "fixed_large", "learned", "learned_range"),
            "lambda_min_clipped": (-math.inf,),
        },
    ),
    "UniPCMultistepScheduler": SchedulerClass(
        "unipc",
        {
            **_SOLVER,
            "predict_x0": True,
            "solver_type": "bh2",
            "disable_corrector": [],
            "solver_p": None,
            "final_sigmas_type": "zero",
            **_ZERO_SNR,
            "sigma_min": None,
            "sigma_max": None,
            "shift_terminal": None,
        },
        {
            **_MULTISTEP,
            "predict_x0": (True,),
            "solver_order": (1, 2, 3),
            "disable_corrector": ([],),
            "solver_p": (None,),
            "solver_type": ("bh1", "bh2", "midpoint", "heun", "logrho"),
        },
    ),
    "DEISMultistepScheduler": SchedulerClass(
        "deis",
        {**_SOLVER, "algorithm_type": "deis", "solver_type": "logrho", "final_sigmas_type": "sigma_min"},
        {
            **_MULTISTEP,
            "algorithm_type": ("deis",),
            "solver_type": ("logrho",),
            "solver_order": (1, 2, 3),
            "use_karras_sigmas": (False, None),
            "use_exponential_sigmas": (False, None),
        },
    ),
    "LMSDiscreteScheduler": SchedulerClass("lms", {**_BETAS, **_CURVES}, _PLAIN),
    "KDPM2DiscreteScheduler": SchedulerClass("dpm2", {**_BETAS, **_CURVES, **_SD_BETAS}, _PLAIN),
    "KDPM2AncestralDiscreteScheduler": SchedulerClass("dpm2", {**_BETAS, **_CURVES, **_SD_BETAS}, _PLAIN, {"eta": 1.0}),
    "DPMSolverSDEScheduler": SchedulerClass(
        "dpmpp-sde", {**_BETAS, **_CURVES, **_SD_BETAS, "noise_sampler_seed": None}, _PLAIN
    ),
    "LCMScheduler": SchedulerClass("lcm", _DISTILLED, {**_PLAIN, "timestep_scaling": (10.0,)}),
    "TCDScheduler": SchedulerClass(
        "tcd",
        _DISTILLED,
        {**_PLAIN, "beta_schedule": ("scaled_linear",), "trained_betas": (None,), "rescale_betas_zero_snr": (False,)},
    ),
}
REPLACED: dict[str, Mapping[str, Any]] = {
    "DPMSolverSinglestepScheduler": {key: value for key, value in _DPM.items() if key != "timestep_spacing"}
}
"""Classes whose process is supported; DDIM is used instead of their sampler."""

UNCLIP = "UnCLIPScheduler"
UNCLIP_CLASS = SchedulerClass(
    "ddpm",
    {
        "num_train_timesteps": 1000,
        "variance_type": "fixed_small_log",
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "prediction_type": "epsilon",
        "beta_schedule": "squaredcos_cap_v2",
    },
    {
        "variance_type": ("fixed_small_log", "learned_range"),
        "prediction_type": ("epsilon", "sample"),
        "beta_schedule": ("squaredcos_cap_v2",),
    },
)
"""The scheduler of Karlo and of Kandinsky's prior. Not among `CLASSES`: it is never written, DDPM stands for it."""

_ELSEWHERE = {key for kind in CLASSES.values() for key in (*kind.defaults, *kind.only)} | {"skip_prk_steps"}
"""Fields of any class: a config made from another class's keeps its fields, which have no effect."""

_FIRST_RELEASES: dict[str, tuple[Any, ...]] = {
    "tensor_format": ("pt", "np", None),
    "timestep_values": (None,),
    "predict_epsilon": (True, None),
    "denoise_final": (True, None),
}
"""Fields of diffusers 0.1 to 0.9 that later versions do not read, and the values equal to current behaviour."""

_COMMON: dict[str, Any] = {
    **_ZERO_SNR,
    **_CURVES,
    "final_sigmas_type": "zero",
    "set_alpha_to_one": True,
    "sigma_min": None,
    "sigma_max": None,
}


def options_of(config: Mapping[str, Any], kind: SchedulerClass, where: str) -> dict[str, Any]:
    """All fields of a class, from the config or the class's default.

    Fields of other classes are ignored, as in diffusers, except those in `kind.only`.

    Raises:
        SourceError: `unknown-key` for a field that no class has; `unsupported` for an unsupported value.
    """
    said = {key: value for key, value in config.items() if not key.startswith("_")}
    public = {key: value for key, value in said.items() if not _left_to_class(config, key)}
    for key in public:
        if key not in _ELSEWHERE and public[key] not in _FIRST_RELEASES.get(key, ()):
            fits = suggest(key, _ELSEWHERE)
            raise SourceError("unknown-key", f"unknown scheduler field {key!r}", where=f"{where}.{key}", fits=fits)
    for key, allowed in kind.only.items():
        value = public.get(key, kind.defaults.get(key, allowed[0]))
        if value not in allowed:
            raise unsupported(key, value, where, allowed)
    return {**_COMMON, **kind.defaults, **{key: value for key, value in public.items() if key in kind.defaults}}


def _left_to_class(config: Mapping[str, Any], key: str) -> bool:
    """Whether the file marks a value as its class's default: diffusers then uses the loaded class's default."""
    names = config.get("_use_default_values", [])
    return isinstance(names, list) and key in names


def unsupported(key: str, value: Any, where: str, allowed: Any) -> SourceError:
    """The error for an unsupported value of a field."""
    fits = " or ".join(repr(v) for v in allowed)
    return SourceError("unsupported", f"{key} = {value!r} is not supported", where=f"{where}.{key}", fits=fits)


def repaired(config: Mapping[str, Any], pipeline: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A scheduler's config as corrected by diffusers' pipelines on loading, and notes on the changes.

    Files of the first releases lack `steps_offset`, `clip_sample` and `skip_prk_steps`, whose defaults changed later.
    """
    kind = CLASSES.get(str(config.get("_class_name")))
    given, notes = dict(config), list[str]()
    defaults: Mapping[str, Any] = {} if kind is None else kind.defaults
    for key, right in REPAIRS.get(pipeline, {}).items():
        found = given.get(key, defaults.get(key, right))
        wrong = found != right if key == "steps_offset" else found is not right and isinstance(found, bool)
        if wrong:
            given[key] = right
            notes.append(f"scheduler: {key} is {found!r} in this file; {right!r} is used, as in diffusers")
    return given, tuple(notes)


_TEXT_TO_IMAGE = {"steps_offset": 1, "clip_sample": False}
REPAIRS: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": _TEXT_TO_IMAGE,
    "StableDiffusionImg2ImgPipeline": _TEXT_TO_IMAGE,
    "StableDiffusionInpaintPipeline": {"steps_offset": 1, "skip_prk_steps": True},
}
"""Pipelines that correct files of diffusers' first releases on loading, and the values they set."""
