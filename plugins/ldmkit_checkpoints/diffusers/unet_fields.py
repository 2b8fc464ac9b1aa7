"""Fields of diffusers' U-Nets: the defaults of each class, the supported values and their types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ldmkit import SourceError, shown, suggest

PLAIN = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "num_train_timesteps": None,
}
CROSS = {
    "sample_size": None,
    "in_channels": 4,
    "out_channels": 4,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "downsample_padding": 1,
    "dropout": 0.0,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,
    "use_linear_projection": False,
    "class_embed_type": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "num_class_embeds": None,
    "upcast_attention": False,
    "resnet_time_scale_shift": "default",
    "time_embedding_dim": None,
    "projection_class_embeddings_input_dim": None,
    "addition_embed_type_num_heads": 64,
    "act_fn": "silu",
    "mid_block_scale_factor": 1,
    "only_cross_attention": False,
    "mid_block_only_cross_attention": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_act_fn": None,
    "cross_attention_norm": None,
}
ONLY = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "reverse_transformer_layers_per_block": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
}
"""Fields supported at these values only, by classes that have no default for them above."""

ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu", "relu": "relu", "mish": "mish"}
"""diffusers' names of activations, and ours."""

_PER_LEVEL = ("layers_per_block", "attention_head_dim", "transformer_layers_per_block", "cross_attention_dim")
"""Fields for which UNet2DConditionModel accepts a list, one entry per level."""

_OPTIONAL: dict[str, type] = {
    **dict.fromkeys(("class_embed_type", "addition_embed_type", "mid_block_type"), str),
    **dict.fromkeys(("encoder_hid_dim_type", "time_embedding_act_fn", "cross_attention_norm"), str),
    "encoder_hid_dim": int,
    **dict.fromkeys(("num_class_embeds", "time_embedding_dim", "attn_norm_num_groups", "num_train_timesteps"), int),
    **dict.fromkeys(("addition_time_embed_dim", "projection_class_embeddings_input_dim", "attention_head_dim"), int),
}
"""Fields that may be null, and their type otherwise."""


def read_options(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with the class's defaults filled in.

    Raises:
        SourceError: `unknown-key`; `unsupported` for a value of another type or an unsupported one.
    """
    for key, value in config.items():
        if key.startswith("_") or key in defaults:
            continue
        if key not in ONLY:
            fits = suggest(key, {*defaults, *ONLY})
            raise SourceError("unknown-key", f"unknown U-Net key {key!r}", where=key, fits=fits)
        if value not in ONLY[key]:
            raise refuse(key, value, repr(ONLY[key][0]))
    options = {**defaults, **{k: v for k, v in config.items() if k in defaults}}
    for key, value in options.items():
        fits = _misfit(key, value, defaults)
        if fits:
            raise refuse(key, value, fits)
    if options["resnet_time_scale_shift"] not in ("default", "scale_shift"):
        raise refuse("resnet_time_scale_shift", options["resnet_time_scale_shift"], "default, scale_shift")
    if options["downsample_padding"] not in (0, 1):
        raise refuse("downsample_padding", options["downsample_padding"], "0 or 1")
    _check_levels(options)
    flags = (key for key, value in defaults.items() if isinstance(value, bool) and key != "only_cross_attention")
    return options | {key: bool(options[key]) for key in flags}


def refuse(key: str, value: Any, fits: str) -> SourceError:
    """The error for an unsupported value of a field."""
    return SourceError("unsupported", f"{key} = {shown(value)} is not supported", where=key, fits=fits)


def _misfit(key: str, value: Any, defaults: Mapping[str, Any]) -> str:
    """What would fit, if a value is of the wrong type; empty otherwise."""
    default, many = defaults[key], isinstance(value, (list, tuple))
    if key == "sample_size":
        fits = value is None or _whole(value) or (many and len(value) == 2 and all(map(_whole, value)))
        return "" if fits else "one or two sizes in latent pixels"
    if key in ("only_cross_attention", "mid_block_only_cross_attention"):
        each = list(value) if many and key == "only_cross_attention" else [value]
        fits = each and all(isinstance(v, bool) or (v is None and default is None) for v in each)
        return "" if fits else "true or false" + ", or one per level" * (key == "only_cross_attention")
    if key in ("act_fn", "time_embedding_act_fn"):
        fits = (isinstance(value, str) and value.lower() in ACTIVATIONS) or (value is None and default is None)
        return "" if fits else ", ".join(ACTIVATIONS)
    if isinstance(default, bool):
        return "" if value is None or isinstance(value, bool) else "true or false"
    if isinstance(default, tuple):
        fits = many and value and all(isinstance(v, str) if isinstance(default[0], str) else _whole(v) for v in value)
        return "" if fits else f"a list like {list(default)}"
    if key in _OPTIONAL and value is None and (key != "attention_head_dim" or "cross_attention_dim" not in defaults):
        return ""
    if isinstance(default, str) or _OPTIONAL.get(key) is str:
        return "" if isinstance(value, str) else "a name"
    if key in ("mid_block_scale_factor", "resnet_out_scale_factor"):
        return "" if type(value) in (int, float) and 0 < value < math.inf else "a positive number"
    if key in ("freq_shift", "norm_eps", "dropout"):
        return "" if type(value) in (int, float) and math.isfinite(value) else "a number"
    if many and key in _PER_LEVEL and "cross_attention_dim" in defaults:
        least = 0 if key == "transformer_layers_per_block" else 1  # 0 for a level without transformers
        fits = value and all(type(v) is int and v >= least for v in value)
        return "" if fits else "an integer, or one per level"
    return "" if _whole(value) or (key == "downsample_padding" and value == 0) else "a positive integer"


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 1


def _check_levels(options: Mapping[str, Any]) -> None:
    levels = len(options["block_out_channels"])
    for key in ("down_block_types", "up_block_types", "only_cross_attention", *_PER_LEVEL):
        value = options.get(key)
        if isinstance(value, (list, tuple)) and len(value) != levels:
            what = f"{key} has {len(value)} entries, block_out_channels {levels}"
            raise SourceError("unsupported", what, where=key, fits="one entry per level in both")
    groups, middle = options["norm_num_groups"], options.get("attn_norm_num_groups")
    if any(width % groups for width in options["block_out_channels"]):
        raise refuse("norm_num_groups", groups, "a divisor of all block_out_channels")
    if middle is not None and options["block_out_channels"][-1] % middle:
        raise refuse("attn_norm_num_groups", middle, "a divisor of the last of block_out_channels")
