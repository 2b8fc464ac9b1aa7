"""Notes on schedulers whose runs in diffusers deviate from the exact formulas by rounding.

diffusers' tables and most states are float32; ldmkit's are float64 on the host. The figures are relative to the largest
value of the last state, measured by tests/parity/test_scheduler_rounding.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ldmkit import PartSpec


def differences(sampler: PartSpec, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The notes for a sampler with these options."""
    found = [
        _zero_signal(sampler.type, options),
        _few(sampler.type, options),
        _curves(sampler.type, options),
        _coefficients(sampler, options),
        _counts(options),
        _cut(sampler.type),
        _tcd_note(sampler),
    ]
    return tuple(note for note in found if note)


def _zero_signal(sampler: str, options: Mapping[str, Any]) -> str:
    if not options["rescale_betas_zero_snr"] or sampler not in ("euler", "euler-ancestral"):
        return ""
    what = "rescale_betas_zero_snr: runs of 1 to 3 steps may differ from diffusers' by 1e-3"
    return f"{what}, which rounds a state of sigma 4096 to float32"


def _few(sampler: str, options: Mapping[str, Any]) -> str:
    if options["beta_schedule"] == "squaredcos_cap_v2" and options["trained_betas"] is None:
        what = "beta_schedule squaredcos_cap_v2: runs of 1 to 5 steps may differ from diffusers' by 1e-3, Heun's by 0.1"
        return f"{what}: it rounds the first and last noise levels to float32"
    if sampler not in ("heun", "dpm2", "deis", "lms"):
        return ""
    what = f"{sampler}: runs of 1 to 3 steps may differ from diffusers' by 5e-3"
    return f"{what}: long steps amplify its float32 rounding"


def _curves(sampler: str, options: Mapping[str, Any]) -> str:
    key = next((key for key in ("use_karras_sigmas", "use_exponential_sigmas") if options[key]), None)
    if key is None:
        return ""
    if sampler in ("lms", "deis"):
        what = "runs of nearly as many steps as there are timesteps may differ from diffusers' by 0.03"
        return f"{key}: {what}: it rounds noise levels to float32"
    cut = key == "use_exponential_sigmas" or options["beta_schedule"] == "squaredcos_cap_v2"
    if sampler in ("dpmpp-2m", "dpmpp-2m-sde", "dpmpp-3m", "unipc") and (cut or options["rescale_betas_zero_snr"]):
        what = "the first timestep is the last of the table here; diffusers' may be 1 to 5 lower"
        return f"{key}: {what}, where it rounds logarithms to float32"
    return ""


def _coefficients(sampler: PartSpec, options: Mapping[str, Any]) -> str:
    if sampler.type != "deis" or options["solver_order"] != 3:
        return ""
    what = "solver_order 3: runs may differ from diffusers' by 2e-4 at 50 steps, 2e-3 at 200 and 0.2 at 998"
    return f"{what}: its coefficients lose digits in float32"


def _cut(sampler: str) -> str:
    if sampler not in ("plms", "lms"):
        return ""
    what = f"{sampler}: runs from a picture at a strength below 1 differ from diffusers' by 0.03 to 0.4"
    return f"{what}: it begins them in the middle of a multistep run, and here they begin anew"


def _counts(options: Mapping[str, Any]) -> str:
    """Numbers of steps N for which numpy.arange(T, 0, -T / N) has N + 1 values."""
    total = options["num_train_timesteps"]
    if options["timestep_spacing"] != "trailing" or type(total) is not int or not 0 < total <= 100_000:
        return ""
    if options.get("original_inference_steps") is not None or options["use_karras_sigmas"]:
        return ""
    counts = [n for n in range(1, total + 1) if math.ceil(total / (total / n)) != n]
    if not counts:
        return ""
    some = ", ".join(map(str, counts[:3]))
    what = (
        f"timestep_spacing trailing: for {len(counts)} numbers of steps ({some} ...) diffusers takes one step too many"
    )
    return f"{what}, at timestep -1; ldmkit takes the requested number"


def _tcd_note(sampler: PartSpec) -> str:
    if sampler.type != "tcd":
        return ""
    return "tcd: gamma is 0.3, as published; diffusers' pipelines pass eta = 0 where a call says none"
