"""The forward process of an original yaml, and the schedule buffers in its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ldmkit_processes.discrete import Discrete
from torch import Tensor

from ldmkit import LazyTensor, PartSpec, SourceError, suggest, validated
from ldmkit_checkpoints.compvis.yaml_config import params_of, section
from ldmkit_checkpoints.singlefile.evidence import Evidence

_SCHEDULES = {"linear": "linear-sqrt", "cosine": "cosine", "sqrt_linear": "linear", "sqrt": "sqrt"}
_PREDICTIONS = {"eps": "eps", "x0": "x0", "v": "v"}
_SCALINGS = {"EpsScaling": "eps", "VScaling": "v"}

BUFFERS = (
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
)
"""Schedule buffers that LatentDiffusion stores, each float32 (timesteps,)."""

_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Relative to the largest value of a buffer; the float32 tables are float64 results, rounded once."""


def process_from_ldm(params: Mapping[str, Any], where: str, evidence: Evidence | None = None) -> PartSpec:
    """The process for LatentDiffusion's parameters.

    Raises:
        SourceError: an unknown schedule or parameterization; evidence in the file that disagrees.
    """
    schedule, prediction = params.get("beta_schedule", "linear"), params.get("parameterization", "eps")
    if params.get("given_betas") is None and schedule not in _SCHEDULES:
        what = f"unknown schedule {schedule!r}"
        raise SourceError(
            "unknown-schedule", what, where=f"{where}.beta_schedule", fits=suggest(str(schedule), _SCHEDULES)
        )
    if prediction not in _PREDICTIONS:
        what = f"unknown parameterization {prediction!r}"
        fits = suggest(str(prediction), _PREDICTIONS)
        raise SourceError("unknown-prediction", what, where=f"{where}.parameterization", fits=fits)
    if (betas := params.get("given_betas")) is not None:
        if not isinstance(betas, list) or len(betas) < 2:
            what, fits = "given_betas is not a list of betas", "a list of two betas or more"
            raise SourceError("unsupported", what, where=f"{where}.given_betas", fits=fits)
        given = {"schedule": "betas", "values": betas, "steps": len(betas), "prediction": _PREDICTIONS[prediction]}
        return _discrete(given, where, evidence)
    config: dict[str, Any] = {
        "schedule": _SCHEDULES[schedule],
        "beta_start": params.get("linear_start", 1e-4),
        "beta_end": params.get("linear_end", 2e-2),
        "cosine_s": params.get("cosine_s", 8e-3),
        "steps": params.get("timesteps", 1000),
        "prediction": _PREDICTIONS[prediction],
    }
    return _discrete(config, where, evidence)


def process_from_sgm(section_: Mapping[str, Any], where: str, evidence: Evidence | None = None) -> PartSpec:
    """The process for an sgm `denoiser_config`: DiscreteDenoiser with the legacy schedule.

    Raises:
        SourceError: an unknown denoiser, scaling or discretization; evidence in the file that disagrees.
    """
    params = params_of(section_)
    if section_["target"].rpartition(".")[2] not in ("DiscreteDenoiser", "LegacyDDPMDiscretization"):
        what = f"unknown denoiser {section_['target']!r}"
        raise SourceError("unknown-target", what, where=where, fits="DiscreteDenoiser")
    scaling = section(params, "scaling_config", where)["target"].rpartition(".")[2]
    if scaling not in _SCALINGS:
        raise SourceError("unknown-target", f"the scaling {scaling!r}", where=where, fits=suggest(scaling, _SCALINGS))
    discretization = section(params, "discretization_config", where)
    if not discretization["target"].endswith(".LegacyDDPMDiscretization"):
        what = f"unknown discretization {discretization['target']!r}"
        raise SourceError("unknown-target", what, where=where, fits="LegacyDDPMDiscretization")
    betas = params_of(discretization)
    config: dict[str, Any] = {
        "beta_start": betas.get("linear_start", 0.00085),
        "beta_end": betas.get("linear_end", 0.012),
        "steps": betas.get("num_timesteps", params.get("num_idx", 1000)),
        "prediction": _SCALINGS[scaling],
        "time_rule": "nearest",
    }
    return _discrete(config, where, evidence)


def _discrete(config: dict[str, Any], where: str, evidence: Evidence | None) -> PartSpec:
    if evidence is not None:
        evidence.check("predicts", config["prediction"], where)
        config["zero_terminal_snr"] = evidence.zero_snr(config["prediction"], where)
    value = validated(lambda: Discrete.model_validate(config), where, SourceError, Discrete)
    return PartSpec(type="discrete", config=value.model_dump(mode="json", exclude_defaults=True))


def expected_buffers(process: Discrete, v_posterior: float = 0.0) -> dict[str, Tensor]:
    """The 12 buffers as float64 tensors (steps,) (Ho et al. 2020, equations 4 to 7)."""
    betas = torch.tensor(process.table.betas, dtype=torch.float64)
    bars = torch.tensor(process.table.alpha_bars, dtype=torch.float64)
    before = torch.cat([torch.ones(1, dtype=torch.float64), bars[:-1]])
    variance = (1 - v_posterior) * betas * (1 - before) / (1 - bars) + v_posterior * betas
    values = (
        *(betas, bars, before, bars.sqrt(), (1 - bars).sqrt()),
        *((1 - bars).log(), (1 / bars).sqrt(), (1 / bars - 1).sqrt()),
        *(variance, variance.clamp(min=1e-20).log()),
        *(betas * before.sqrt() / (1 - bars), (1 - before) * (1 - betas).sqrt() / (1 - bars)),
    )
    return dict(zip(BUFFERS, values, strict=True))


def check_buffers(
    found: Mapping[str, LazyTensor],
    expected: Mapping[str, Tensor],
    where: str,
    unscaled: Mapping[str, Tensor] | None = None,
) -> None:
    """Compare the schedule buffers of a file with the config.

    Args:
        unscaled: values before rescaling to zero terminal SNR; programs that rescale keep the file's buffers.

    Raises:
        SourceError: `schedule-mismatch`, with the buffer and the largest difference.
    """
    try:
        _check_buffers(found, expected, where)
    except SourceError:
        if not unscaled:
            raise
        _check_buffers(found, unscaled, where)


def _check_buffers(found: Mapping[str, LazyTensor], expected: Mapping[str, Tensor], where: str) -> None:
    for name, want in expected.items():
        if name not in found:
            continue
        if found[name].shape != tuple(want.shape):
            what = f"{name!r} has shape {list(found[name].shape)}, the config asks for {list(want.shape)}"
            raise SourceError("schedule-mismatch", what, where=where)
        tolerance = _TOLERANCE.get(found[name].dtype, 0.0)
        difference = float((found[name].read(True).double() - want).abs().max() / want.abs().max())
        if not difference <= tolerance:
            what = f"{name!r} in the file differs from the config's schedule by {difference:.2g} of its largest value"
            fits = "the config that the checkpoint was trained with (linear_start, linear_end, timesteps, ...)"
            raise SourceError("schedule-mismatch", what, where=where, fits=fits)
