"""config.json of diffusers' AutoencoderKL and VQModel, read and written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ldmkit_codecs.autoencoder import AutoencoderConfig
from ldmkit_codecs.kl import KLConfig
from ldmkit_codecs.vq import VQConfig

from ldmkit import SourceError, suggest
from ldmkit_checkpoints.config_fields import checked, known_only, numbers
from ldmkit_checkpoints.diffusers.latents import DEFAULT_SCALE, never_scaled

_COMMON = {
    *("in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels", "layers_per_block"),
    *("act_fn", "latent_channels", "norm_num_groups", "sample_size", "scaling_factor", "force_upcast"),
    "mid_block_add_attention",
}

_KL = {"shift_factor", "latents_mean", "latents_std", "use_quant_conv", "use_post_quant_conv"}

NAMES = {
    "widths": "block_out_channels",
    "blocks": "layers_per_block",
    "norm_groups": "norm_num_groups",
    "z_channels": "latent_channels",
    "embed_dim": "vq_embed_dim",
    "codebook_size": "num_vq_embeddings",
    "quant_conv": "use_quant_conv",
    "post_quant_conv": "use_post_quant_conv",
    "scale": "scaling_factor",
    "shift": "shift_factor",
    "spatial_groups": "norm_type",
    "encoder_blocks": "num_encoder_blocks",
    "decoder_blocks": "num_decoder_blocks",
}
"""Field of a native config -> name in diffusers, for errors; other fields have the same name."""

SPATIAL_GROUPS = 32
"""Groups of all norms of a VQModel with norm_type spatial, whatever its norm_num_groups, which the encoder's have."""

_VQ = {"num_vq_embeddings", "vq_embed_dim", "norm_type", "lookup_from_codebook"}


def kl_from_diffusers(config: Mapping[str, Any], where: str = "vae/config.json") -> dict[str, Any]:
    """The native config for an AutoencoderKL's config.json, scale and shift included.

    Raises:
        SourceError: unknown or unsupported entries.
    """
    config = public(config)
    known_only(config, _COMMON | _KL, where)
    native = _from_diffusers(config, where, latent_channels=4)
    native["quant_conv"] = config.get("use_quant_conv", True)
    native["post_quant_conv"] = config.get("use_post_quant_conv", True)
    native["scale"], native["shift"] = scaling(config, where)
    native["force_upcast"] = bool(config.get("force_upcast", True))
    return checked(KLConfig, native, where, NAMES)


def vq_from_diffusers(
    config: Mapping[str, Any], where: str = "vqvae/config.json", quantises: bool | None = None
) -> dict[str, Any]:
    """The native config for a VQModel's config.json alone; see `diffusers.latents` for what its pipeline applies.

    Args:
        quantises: whether its pipeline quantises latents before decoding; None: as the pipelines that use such a norm.

    Raises:
        SourceError: unknown or unsupported entries.
    """
    unscaled = never_scaled(config)
    config = public(config)
    known_only(config, _COMMON | _VQ, where)
    norm = config.get("norm_type", "group")
    if norm not in ("group", "spatial"):
        fits = "'group' or 'spatial'"
        raise SourceError("unsupported", f"norm_type {norm!r}", where=f"{where}.norm_type", fits=fits)
    if config.get("lookup_from_codebook"):
        what = "lookup_from_codebook true: latents would be indices of the codebook"
        raise SourceError("unsupported", what, where=f"{where}.lookup_from_codebook", fits="false")
    native = _from_diffusers(config, where, latent_channels=3)
    native["scale"] = scaling(config, where)[0]
    if unscaled or (norm == "spatial" and native["scale"] == DEFAULT_SCALE):  # Kandinsky's pipelines do not scale
        native["scale"] = 1.0
    native["embed_dim"] = native["z_channels"] if config.get("vq_embed_dim") is None else config["vq_embed_dim"]
    if norm == "spatial" and any(width % SPATIAL_GROUPS for width in native["widths"]):
        what = f"block_out_channels {native['widths']} with norm_type spatial"
        raise SourceError("invalid", what, where=where, fits=f"multiples of {SPATIAL_GROUPS}")
    if norm == "spatial" and native["embed_dim"] != native["z_channels"]:
        what = f"norm_type spatial with vq_embed_dim {native['embed_dim']}"
        fits = f"latent_channels, {native['z_channels']}, as its norms read latents of that width"
        raise SourceError("invalid", what, where=f"{where}.vq_embed_dim", fits=fits)
    native["spatial_groups"] = SPATIAL_GROUPS if norm == "spatial" else None
    native["quantises"] = norm != "spatial" if quantises is None else quantises
    native["codebook_size"] = config.get("num_vq_embeddings", 256)
    native["force_upcast"] = bool(config.get("force_upcast", False))
    return checked(VQConfig, native, where, NAMES)


def kl_to_diffusers(config: Mapping[str, Any] | KLConfig) -> dict[str, Any]:
    """config.json of an AutoencoderKL.

    Raises:
        SourceError: this class cannot express it.
    """
    c = KLConfig.of(config)
    convs = {"use_quant_conv": c.quant_conv, "use_post_quant_conv": c.post_quant_conv}
    out = {**_to_diffusers("AutoencoderKL", c), **convs}
    if c.latent_channels != c.z_channels:
        raise inexpressible(f"embed_dim {c.embed_dim} beside z_channels {c.z_channels}")
    if isinstance(c.scale, tuple) or isinstance(c.shift, tuple):
        width = c.latent_channels
        scales = c.scale if isinstance(c.scale, tuple) else (c.scale,) * width
        shifts = c.shift if isinstance(c.shift, tuple) else (c.shift,) * width
        return {**out, "scaling_factor": 1.0, "latents_mean": list(shifts), "latents_std": [1.0 / s for s in scales]}
    return {**out, "scaling_factor": c.scale, "shift_factor": c.shift or None}


def vq_to_diffusers(config: Mapping[str, Any] | VQConfig) -> dict[str, Any]:
    """config.json of a VQModel.

    Raises:
        SourceError: this class cannot express it.
    """
    c = VQConfig.of(config)
    if isinstance(c.scale, tuple) or c.shift != 0:
        raise inexpressible("scale or shift per channel")
    norm = "group" if c.spatial_groups is None else "spatial"
    other = c.latent_channels != c.z_channels
    for what, wrong in {
        f"spatial norms with {c.spatial_groups} groups": c.spatial_groups not in (None, SPATIAL_GROUPS),
        "spatial norms for latents of another width than z_channels": norm == "spatial" and other,
        # no file says which: pipelines with spatial norms do not quantise, all others do
        "decoder with spatial norms of quantised latents": norm == "spatial" and c.quantises,
        "decoder with group norms of unquantised latents": norm == "group" and not c.quantises,
    }.items():
        if wrong:
            raise inexpressible(what)
    more = {"num_vq_embeddings": c.codebook_size, "vq_embed_dim": c.latent_channels, "norm_type": norm}
    return {**_to_diffusers("VQModel", c), **more, "scaling_factor": c.scale}


def _from_diffusers(config: Mapping[str, Any], where: str, latent_channels: int) -> dict[str, Any]:
    widths = numbers(config.get("block_out_channels", (64,)), f"{where}.block_out_channels")
    levels = len(widths)
    down = _names(config.get("down_block_types", ("DownEncoderBlock2D",)), f"{where}.down_block_types")
    up = _names(config.get("up_block_types", ("UpDecoderBlock2D",)), f"{where}.up_block_types")
    attended = _attended(down, "DownEncoderBlock2D", f"{where}.down_block_types")
    if attended != _attended(up[::-1], "UpDecoderBlock2D", f"{where}.up_block_types"):
        what = "attention at different levels in encoder and decoder: up_block_types do not mirror down_block_types"
        raise SourceError("unsupported", what, where=where)
    if len(down) != levels or len(up) != levels:
        what = f"down_block_types has {len(down)} entries, up_block_types {len(up)}, block_out_channels {levels}"
        raise SourceError("invalid", what, where=where)
    groups = config.get("norm_num_groups", 32)
    if type(groups) is not int or groups < 1 or any(width % groups for width in widths):
        fits = "a divisor of all block_out_channels"
        raise SourceError("invalid", f"norm_num_groups {groups!r}", where=f"{where}.norm_num_groups", fits=fits)
    if config.get("act_fn", "silu") not in ("silu", "swish"):
        raise SourceError("unsupported", f"act_fn {config['act_fn']!r}", where=f"{where}.act_fn", fits="'silu'")
    return {
        "in_channels": config.get("in_channels", 3),
        "out_channels": config.get("out_channels", 3),
        "widths": widths,
        "blocks": config.get("layers_per_block", 1),
        "attention_levels": attended,
        "mid_attention": "vanilla" if config.get("mid_block_add_attention", True) else "none",
        "norm_groups": groups,
        "z_channels": config.get("latent_channels", latent_channels),
    }


def encoder_from_diffusers(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The native geometry of an encoder alone.

    Raises:
        SourceError: unsupported entries.
    """
    down = _names(config["down_block_types"], f"{where}.down_block_types")
    mirrored = [name.replace("Down", "Up").replace("Encoder", "Decoder") for name in reversed(down)]
    native = _from_diffusers({**config, "up_block_types": mirrored}, where, latent_channels=4)
    del native["out_channels"], native["mid_attention"]
    return native


def encoder_to_diffusers(c: AutoencoderConfig) -> dict[str, Any]:
    """Fields of AutoencoderKL's config.json, of which some are an encoder's.

    Raises:
        SourceError: this class cannot express it.
    """
    return _to_diffusers("AutoencoderKL", c)


def _attended(blocks: list[str], plain: str, where: str) -> list[int]:
    known = {plain: False, f"Attn{plain}": True}
    for block in blocks:
        if block not in known:
            raise SourceError("unsupported", f"block {block!r}", where=where, fits=suggest(block, known))
    return [level for level, block in enumerate(blocks) if known[block]]


def scaling(config: Mapping[str, Any], where: str, default: float = DEFAULT_SCALE) -> tuple[Any, Any]:
    """Scale and shift of a config.json: scaling_factor, shift_factor, or latents_mean and latents_std.

    Raises:
        SourceError: not numbers, or a contradictory combination.
    """
    factor, shift = config.get("scaling_factor", default), config.get("shift_factor")
    for key, value in (("scaling_factor", factor), ("shift_factor", shift or 0.0)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise SourceError("invalid", f"{key} {value!r}", where=f"{where}.{key}", fits="a number")
    if factor == 0:
        raise SourceError("invalid", "scaling_factor 0", where=f"{where}.scaling_factor", fits="a number other than 0")
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None and std is None:
        return factor, shift or 0.0
    if mean is None or std is None or shift:
        what = "latents_mean and latents_std must be given together, and not with shift_factor"
        raise SourceError("unsupported", what, where=where)
    try:
        return [factor / s for s in std], list(mean)
    except (TypeError, ZeroDivisionError):
        what = f"latents_mean and latents_std must be lists of numbers, latents_std without 0; got {mean!r}, {std!r}"
        raise SourceError("invalid", what, where=where) from None


def _to_diffusers(name: str, c: AutoencoderConfig) -> dict[str, Any]:
    for what, wrong in {
        "linear attention": c.mid_attention == "linear" or (c.level_attention == "linear" and bool(c.attention_levels)),
        "resampling without convolutions": not c.resample_conv,
        "tanh_out": c.tanh_out,
        "scale 0": c.scale == 0,
        "unknown scale": c.scale is None,
    }.items():
        if wrong:
            raise inexpressible(what)
    attends = [level in c.attention_levels for level in range(len(c.widths))]
    return {
        "_class_name": name,
        "in_channels": c.in_channels,
        "out_channels": c.out_channels,
        "down_block_types": ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attends],
        "up_block_types": ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attends)],
        "block_out_channels": list(c.widths),
        "layers_per_block": c.blocks,
        "act_fn": "silu",
        "latent_channels": c.z_channels,
        "norm_num_groups": c.norm_groups,
        "sample_size": 256,
        "mid_block_add_attention": c.mid_attention != "none",
        "force_upcast": c.force_upcast,
    }


def inexpressible(what: str) -> SourceError:
    return SourceError("inexpressible", f"diffusers' class has no {what}")


def public(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without diffusers' bookkeeping, whose names begin with an underscore."""
    return {key: value for key, value in config.items() if not str(key).startswith("_")}


def _names(values: Any, where: str) -> list[str]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) for v in values):
        raise SourceError("invalid", f"expected a list of names, got {values!r}", where=where)
    return list(values)
