"""What DeepFloyd IF, unCLIP and Kandinsky add to diffusers' conditional U-Net: config fields, read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ldmkit_denoisers.config import UNetConfig, at

from ldmkit import SourceError
from ldmkit_checkpoints.diffusers.unet_fields import ACTIVATIONS, refuse

CONTEXT_GROUPS = 32
"""Groups of diffusers' norm of tokens, which no field says."""

_SCALED = ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D", "ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D")
"""Blocks that `resnet_out_scale_factor` and `resnet_skip_time_act` apply to; the others ignore them."""


def read_additions(options: Mapping[str, Any], kinds: Sequence[str], mid: str) -> dict[str, Any]:
    """Fields of UNetConfig for the activations, scales, and what the context is made of.

    Raises:
        SourceError: `unsupported`.
    """
    activation = ACTIVATIONS[options["act_fn"].lower()]
    only = options["only_cross_attention"]
    middle = options["mid_block_only_cross_attention"]
    if middle is None:
        middle = only if isinstance(only, bool) else False
    times = _time_activations(options, activation, mid)
    attends = [kind in ("cross", "joint") for kind in kinds]
    return {
        "activation": activation,
        "time_activations": None if times == (activation,) else times,
        "output_scale": _output_scale(options),
        "mid_scale": float(options["mid_block_scale_factor"]),
        "only_cross": tuple(attended and at(_tupled(only), i) for i, attended in enumerate(attends)),
        "mid_only_cross": middle and mid == "joint",
        "context_groups": _context_groups(options, "joint" in (*kinds, mid)),
        **_context(options),
    }


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _honoured(options: Mapping[str, Any], key: str) -> list[bool]:
    """Per level, whether its blocks on both sides use a field of `_SCALED`.

    Raises:
        SourceError: one side of a level does, the other does not.
    """
    down, up = ([name in _SCALED for name in options[f"{way}_block_types"]] for way in ("down", "up"))
    if down != up[::-1]:
        raise refuse(key, options[key], "blocks down and up of a level that both use it, or neither")
    return down


def _time_activations(options: Mapping[str, Any], activation: str, mid: str) -> tuple[str, ...] | None:
    name = options["time_embedding_act_fn"]
    once = () if name is None else (ACTIVATIONS[name.lower()],)
    if not options["resnet_skip_time_act"]:
        return (*once, activation) if once else None
    honoured = _honoured(options, "resnet_skip_time_act")
    honoured += [] if mid == "absent" else [mid == "joint"]
    if all(honoured):
        return once
    if any(honoured):
        raise refuse("resnet_skip_time_act", True, "only blocks that use it, or none of them")
    return (*once, activation) if once else None


def _output_scale(options: Mapping[str, Any]) -> tuple[float, ...] | float:
    scale = float(options["resnet_out_scale_factor"])
    if scale == 1:
        return 1.0
    return tuple(scale if used else 1.0 for used in _honoured(options, "resnet_out_scale_factor"))


def _context_groups(options: Mapping[str, Any], joint: bool) -> int | None:
    norm = options["cross_attention_norm"]
    if norm not in (None, "group_norm", "layer_norm") or (joint and norm == "layer_norm"):
        raise refuse("cross_attention_norm", norm, "group_norm, or none")
    if not (joint and norm):
        return None
    width = at(_tupled(options["cross_attention_dim"]), 0)
    if width % CONTEXT_GROUPS:
        fits = f"a multiple of {CONTEXT_GROUPS} beside cross_attention_norm group_norm"
        raise refuse("cross_attention_dim", width, fits)
    return CONTEXT_GROUPS


def _context(options: Mapping[str, Any]) -> dict[str, Any]:
    """How tokens and a picture's embedding reach the attentions and the time embedding."""
    width, kind, added = (options[key] for key in ("encoder_hid_dim", "encoder_hid_dim_type", "addition_embed_type"))
    kind = "text_proj" if kind is None and width is not None else kind
    if kind not in (None, "text_proj", "image_proj"):
        raise refuse("encoder_hid_dim_type", kind, "text_proj, image_proj, or none")
    if added not in (None, "text", "image", "text_time"):
        raise refuse("addition_embed_type", added, "text, image, text_time, or none")
    if width is None and (kind is not None or added == "image"):
        key = "addition_embed_type" if kind is None else "encoder_hid_dim_type"
        raise refuse("encoder_hid_dim", None, f"a width, which {key} {options[key]} needs")
    if isinstance(options["cross_attention_dim"], (list, tuple)) and (kind is not None or added == "text"):
        raise refuse("cross_attention_dim", options["cross_attention_dim"], "one width beside a projection or pool")
    if kind == "image_proj" and added == "text":
        raise refuse("addition_embed_type", added, "image, or none, beside encoder_hid_dim_type image_proj")
    return {
        "context_source": width if kind == "text_proj" else None,
        "pool_heads": options["addition_embed_type_num_heads"] if added == "text" else None,
        "image_dim": width if kind == "image_proj" or added == "image" else None,
        "image_tokens": IMAGE_TOKENS if kind == "image_proj" else None,
        "image_time": added == "image",
    }


IMAGE_TOKENS = 32
"""Tokens that diffusers makes of a picture's embedding, which no field says."""


def write_additions(config: UNetConfig, scaled: Sequence[bool], text_time: bool) -> dict[str, Any]:
    """config.json's fields for what `read_additions` reads.

    Args:
        scaled: per level, whether its blocks use `resnet_out_scale_factor`.
        text_time: addition_embed_type is text_time.

    Raises:
        SourceError: `not-expressible`.
    """
    scales = {at(config.output_scale, level) for level, used in enumerate(scaled) if used} or {1.0}
    rest = {at(config.output_scale, level) for level, used in enumerate(scaled) if not used}
    if len(scales) > 1 or rest - {1.0}:
        raise inexpressible("output scales that differ between levels, or without residual resampling")
    added = "text" if config.pool_heads else "image" if config.image_time else None
    if added and text_time:
        raise inexpressible("text_time beside another addition to the time embedding")
    if config.pool_heads and config.image_time:
        raise inexpressible("both a text and a picture added to the time embedding")
    if config.context_groups not in (None, CONTEXT_GROUPS) or config.image_tokens not in (None, IMAGE_TOKENS):
        raise inexpressible(f"another number of groups than {CONTEXT_GROUPS}, or of tokens than {IMAGE_TOKENS}")
    if (
        config.context_norm
        or (config.image_dim and not config.image_norm)
        or (config.image_tokens and config.context_source)
    ):
        raise inexpressible("text and picture projected as in unCLIP's decoder")
    if config.context_source and config.image_dim not in (None, config.context_source):
        raise inexpressible("tokens and a picture's embedding of different widths")
    if config.image_time and not (config.image_tokens or config.context_source):
        raise inexpressible("a picture's embedding in the time embedding, and neither projection")
    kind = "text_proj" if config.context_source else "image_proj" if config.image_tokens else None
    once, skip = _written_activations(config, all(scaled) and config.mid_kind in ("joint", "absent"))
    return {
        "act_fn": config.activation,
        "time_embedding_act_fn": once,
        "resnet_skip_time_act": skip,
        "resnet_out_scale_factor": scales.pop(),
        "mid_block_scale_factor": config.mid_scale,
        "only_cross_attention": [bool(at(config.only_cross, level)) for level in range(config.levels)],
        "mid_block_only_cross_attention": config.mid_only_cross,
        "cross_attention_norm": "group_norm" if config.context_groups else None,
        "encoder_hid_dim": config.context_source or config.image_dim,
        "encoder_hid_dim_type": kind,
        **({"addition_embed_type": added} if added else {}),
        **({"addition_embed_type_num_heads": config.pool_heads} if config.pool_heads else {}),
    }


def _written_activations(config: UNetConfig, skips: bool) -> tuple[str | None, bool]:
    own, given = config.activation, config.time_activations
    if given is None or given == (own,):
        return None, False
    if len(given) == 2 and given[1] == own:
        return given[0], False
    if len(given) > 1 or not skips:
        raise inexpressible("these activations of the time embedding")
    return (given[0] if given else None), True


def inexpressible(what: str) -> SourceError:
    """The error for a U-Net that diffusers' classes cannot be."""
    return SourceError("not-expressible", f"diffusers has no U-Net with {what}", where="denoiser")
