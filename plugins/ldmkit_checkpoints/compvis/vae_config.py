"""First-stage config from a CompVis or sgm yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from ldmkit_codecs.kl import KLConfig
from ldmkit_codecs.vq import VQConfig

from ldmkit import SourceError, suggest
from ldmkit_checkpoints.config_fields import checked, known_only, numbers

Kind = Literal["kl", "vq", "identity"]

TARGETS: dict[str, Kind] = {
    "ldm.models.autoencoder.AutoencoderKL": "kl",
    "ldm.models.autoencoder.VQModel": "vq",
    "ldm.models.autoencoder.VQModelInterface": "vq",
    "ldm.models.autoencoder.IdentityFirstStage": "identity",
    "taming.models.vqgan.VQModel": "vq",
    "sgm.models.autoencoder.AutoencoderKL": "kl",
    "sgm.models.autoencoder.AutoencoderKLInferenceWrapper": "kl",
    "sgm.models.autoencoder.IdentityFirstStage": "identity",
}
"""`target` in a yaml -> codec."""

_TRAINING_ONLY = {
    *("ckpt_path", "ignore_keys", "image_key", "colorize_nlabels", "monitor", "lossconfig", "loss_config"),
    *("batch_resize_range", "scheduler_config", "lr_g_factor", "use_ema", "ema_decay", "optimizer_config"),
    *("learning_rate", "input_key", "ckpt_engine", "max_batch_size"),
}

_DDCONFIG = {
    *("double_z", "z_channels", "resolution", "in_channels", "out_ch", "ch", "ch_mult", "num_res_blocks"),
    *("attn_resolutions", "dropout", "resamp_with_conv", "use_linear_attn", "attn_type", "tanh_out", "give_pre_end"),
}

_ATTENTION = {"vanilla": "vanilla", "vanilla-xformers": "vanilla", "linear": "linear", "none": "none"}


def first_stage_from_compvis(
    section: Mapping[str, Any], where: str = "first_stage_config"
) -> tuple[Kind, dict[str, Any]]:
    """The codec and its native config for a yaml section with `target` and `params`.

    Raises:
        SourceError: an unknown target or parameter, with a suggestion.
    """
    target = section.get("target")
    if target not in TARGETS:
        what = f"unknown first stage {target!r}"
        raise SourceError("unknown-target", what, where=f"{where}.target", fits=suggest(str(target), TARGETS))
    params = section.get("params") or {}
    kind = TARGETS[target]
    if kind == "identity":
        return kind, {}
    make: Callable[..., dict[str, Any]] = kl_from_compvis if kind == "kl" else vq_from_compvis
    return kind, make(params, where=f"{where}.params")


def kl_from_compvis(params: Mapping[str, Any], where: str = "params") -> dict[str, Any]:
    """The native KL config for AutoencoderKL's parameters, without `scale`, which the diffusion model defines.

    Raises:
        SourceError: unknown, missing or unsupported parameters.
    """
    known_only(params, {"embed_dim", "ddconfig", *_TRAINING_ONLY}, where)
    native = _from_ddconfig(params, where, double_z=True)
    return checked(KLConfig, native, where)


def vq_from_compvis(params: Mapping[str, Any], where: str = "params") -> dict[str, Any]:
    """The native VQ config for VQModel's or VQModelInterface's parameters.

    `remap` and `sane_index_shape` only renumber and reshape indices, which does not affect pictures.

    Raises:
        SourceError: unknown, missing or unsupported parameters.
    """
    ours = {"embed_dim", "n_embed", "ddconfig", "remap", "sane_index_shape"}
    known_only(params, {*ours, *_TRAINING_ONLY}, where)
    native = _from_ddconfig(params, where, double_z=False)
    return checked(VQConfig, {**native, "codebook_size": _need(params, "n_embed", where)}, where)


def _from_ddconfig(params: Mapping[str, Any], where: str, double_z: bool) -> dict[str, Any]:
    dd, place = _need(params, "ddconfig", where), f"{where}.ddconfig"
    if not isinstance(dd, Mapping):
        raise SourceError("invalid", f"expected a mapping, got {type(dd).__name__}", where=place)
    known_only(dd, _DDCONFIG, place)
    if bool(dd.get("double_z", True)) != double_z:
        raise SourceError("unsupported", f"double_z {dd.get('double_z', True)}", where=place, fits=str(double_z))
    if dd.get("give_pre_end"):
        raise SourceError("unsupported", "give_pre_end true: the decoder would return features", where=place)
    kind = "linear" if dd.get("use_linear_attn") else dd.get("attn_type", "vanilla")
    if kind not in _ATTENTION:
        raise SourceError("unsupported", f"attn_type {kind!r}", where=place, fits=", ".join(_ATTENTION))
    kind = _ATTENTION[kind]
    multipliers = numbers(_need(dd, "ch_mult", place), f"{place}.ch_mult")
    ch, resolution = numbers([_need(dd, "ch", place), _need(dd, "resolution", place)], f"{place}.ch, resolution")
    resolutions = numbers(dd.get("attn_resolutions") or (), f"{place}.attn_resolutions")
    attended = [level for level in range(len(multipliers)) if resolution // 2**level in resolutions]
    return {
        "in_channels": dd.get("in_channels", 3),
        "out_channels": dd.get("out_ch", 3),
        "widths": [ch * m for m in multipliers],
        "blocks": _need(dd, "num_res_blocks", place),
        "attention_levels": [] if kind == "none" else attended,
        "level_attention": "vanilla" if kind == "none" else kind,
        "mid_attention": kind,
        "z_channels": _need(dd, "z_channels", place),
        "embed_dim": _need(params, "embed_dim", where),
        "resample_conv": dd.get("resamp_with_conv", True),
        "tanh_out": dd.get("tanh_out", False),
        "dropout": dd.get("dropout", 0.0),
    }


def _need(given: Mapping[str, Any], key: str, where: str) -> Any:
    if given.get(key) is None:
        raise SourceError("missing-parameter", f"{key!r} is required", where=where)
    return given[key]
