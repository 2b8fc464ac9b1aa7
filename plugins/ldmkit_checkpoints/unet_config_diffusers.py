"""Configurations of diffusers' U-Nets (config.json), read and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ldmkit_denoisers.config import UNetConfig, at
from ldmkit_denoisers.encoder import takes_context

from ldmkit.errors import SourceError, suggest

_DOWN = {
    "DownBlock2D": ("none", False),
    "AttnDownBlock2D": ("self", False),
    "CrossAttnDownBlock2D": ("cross", False),
    "ResnetDownsampleBlock2D": ("none", True),
}
_UP = {
    "UpBlock2D": ("none", False),
    "AttnUpBlock2D": ("self", False),
    "CrossAttnUpBlock2D": ("cross", False),
    "ResnetUpsampleBlock2D": ("none", True),
}
_PLAIN = {
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
    "num_train_timesteps": None,
}
_CROSS = {
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
}
_ONLY = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "only_cross_attention": (False,),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "mid_block_only_cross_attention": (None, False),
    "cross_attention_norm": (None,),
}
"""Options of which this U-Net has only these values."""


def unet_from_diffusers(config: Mapping[str, Any], latent_channels: int | None = None) -> UNetConfig:
    """The configuration behind a UNet2DModel's or UNet2DConditionModel's config.json.

    Args:
        latent_channels: channels of x, the rest of `in_channels` being the plane; None: the smaller of in and out.

    Raises:
        SourceError: another class, an unknown key, or an option that this U-Net does not have.
    """
    cross = _is_conditional(config)
    options = read_options(config, _CROSS if cross else _PLAIN)
    kinds, residual = _levels(options)
    widths = tuple(options["block_out_channels"])
    inputs, outputs = options["in_channels"], options["out_channels"]
    vector, vector_dim = _vector(options)
    shared = {
        "channels": min(inputs, outputs) if latent_channels is None else latent_channels,
        "in_channels": inputs,
        "out_channels": outputs,
        "widths": widths,
        "blocks": listed(options["layers_per_block"]),
        "attention": kinds,
        "residual_resample": residual,
        "down_padding": options["downsample_padding"],
        "norm_groups": options["norm_num_groups"],
        "norm_eps": options["norm_eps"],
        "dropout": options["dropout"],
        "scale_shift": options["resnet_time_scale_shift"] == "scale_shift",
        "time_dim": options["time_embedding_dim"],
        "cos_first": options["flip_sin_to_cos"],
        "freq_shift": options["freq_shift"],
        "vector": vector,
        "vector_dim": vector_dim,
    }
    own = _cross_only(options, widths, kinds) if cross else _plain_only(options, widths)
    return UNetConfig.of({**shared, **own}, "config.json")


def diffusers_options(config: Mapping[str, Any], keys: Iterable[str] = ()) -> dict[str, Any]:
    """What `unet_diffusers` has to know beside the configuration: from config.json, and from the file's keys."""
    added = config.get("addition_embed_type") == "text_time"
    deprecated = any(".attentions.0.query." in key for key in keys)
    return {"vector": "add_embedding" if added else "class_embedding", "deprecated": deprecated}


def read_options(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with the defaults filled in, after refusing what is unknown or not supported."""
    for key, value in config.items():
        if key.startswith("_") or key in defaults:
            continue
        if key not in _ONLY:
            raise SourceError(
                "unknown-key", f"unknown U-Net key {key!r}", where=key, fits=suggest(key, {*defaults, *_ONLY})
            )
        plain = set(value) if isinstance(value, (list, tuple)) else {value}
        if not plain <= set(_ONLY[key]):
            raise SourceError("unsupported", f"{key} = {value!r} is not supported", where=key, fits=repr(_ONLY[key][0]))
    options = {**defaults, **{k: v for k, v in config.items() if k in defaults}}
    if options["resnet_time_scale_shift"] not in ("default", "scale_shift"):
        what = f"resnet_time_scale_shift = {options['resnet_time_scale_shift']!r} is not supported"
        raise SourceError("unsupported", what, where="resnet_time_scale_shift", fits="default, scale_shift")
    if options["norm_num_groups"] is None:
        raise SourceError("unsupported", "norm_num_groups = None is not supported", where="norm_num_groups")
    return options


def listed(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(value) if isinstance(value, list) else value


def known(name: str | None, table: Mapping[Any, Any], where: str) -> Any:
    """The entry of a block type.

    Raises:
        SourceError: this U-Net has no such block.
    """
    if name not in table:
        raise SourceError(
            "unsupported", f"block type {name!r} is not supported", where=where, fits=", ".join(map(str, table))
        )
    return table[name]


def _is_conditional(config: Mapping[str, Any]) -> bool:
    name = config.get("_class_name") or ("UNet2DConditionModel" if "cross_attention_dim" in config else "UNet2DModel")
    if name not in ("UNet2DModel", "UNet2DConditionModel"):
        raise SourceError("unsupported", f"{name} is not supported", where="_class_name", fits="UNet2D(Condition)Model")
    return name == "UNet2DConditionModel"


def _levels(options: Mapping[str, Any]) -> tuple[tuple[Any, ...], tuple[bool, ...]]:
    down = [known(name, _DOWN, "down_block_types") for name in options["down_block_types"]]
    up = [known(name, _UP, "up_block_types") for name in reversed(options["up_block_types"])]
    residual_down = [r or (k == "self" and options.get("downsample_type") == "resnet") for k, r in down]
    residual_up = [r or (k == "self" and options.get("upsample_type") == "resnet") for k, r in up]
    if [k for k, _ in down] != [k for k, _ in up]:
        raise SourceError("unsupported", "the way up is not the mirror of the way down", where="up_block_types")
    if residual_down[1:-1] != residual_up[1:-1]:
        raise SourceError("unsupported", "down- and upsampling are of different types", where="upsample_type")
    return tuple(k for k, _ in down), (*residual_down[:-1], residual_up[-1])


def _plain_only(options: Mapping[str, Any], widths: tuple[int, ...]) -> dict[str, Any]:
    size = options["attention_head_dim"]
    mid = known(options["mid_block_type"], {"UNetMidBlock2D": "self", None: "absent"}, "mid_block_type")
    groups = options["attn_norm_num_groups"]
    if groups is None and options["resnet_time_scale_shift"] != "default":
        groups = 0
    return {
        "heads": tuple(_heads(width, size) for width in widths),
        "mid": "none" if mid == "self" and not options["add_attention"] else mid,
        "mid_groups": groups,
    }


def _heads(width: int, size: int | None) -> int:
    if size is not None and width >= size and width % size:
        what = f"attention_head_dim {size} does not divide width {width}"
        raise SourceError("unsupported", what, where="attention_head_dim")
    return 1 if size is None else max(width // size, 1)


def _cross_only(options: Mapping[str, Any], widths: tuple[int, ...], kinds: tuple[Any, ...]) -> dict[str, Any]:
    numbers, depth = listed(options["attention_head_dim"]), listed(options["transformer_layers_per_block"])
    context = options["cross_attention_dim"]
    if isinstance(context, (list, tuple)) and len(set(context)) == 1:
        context = context[0]
    for name, value in (("transformer_layers_per_block", depth), ("cross_attention_dim", context)):
        if isinstance(value, (list, tuple)) and (name != "transformer_layers_per_block" or not _all_int(value)):
            raise SourceError("unsupported", f"{name} = {value!r} is not supported", where=name)
    middle = {"UNetMidBlock2DCrossAttn": "cross", None: "absent"}
    heads = [
        _heads(width, at(numbers, level)) if kinds[level] == "self" else at(numbers, level)
        for level, width in enumerate(widths)
    ]
    return {
        "heads": tuple(heads),
        "mid": known(options["mid_block_type"], middle, "mid_block_type"),
        "mid_heads": at(numbers, len(widths) - 1),
        "depth": depth,
        "context_dim": context,
        "linear_projections": options["use_linear_projection"],
        "upcast_attention": bool(options["upcast_attention"]),
    }


def _all_int(values: Iterable[Any]) -> bool:
    return all(isinstance(v, int) for v in values)


def _vector(options: Mapping[str, Any]) -> tuple[str, int | None]:
    kind, added = options["class_embed_type"], options.get("addition_embed_type")
    wide = options.get("projection_class_embeddings_input_dim")
    if added is not None:
        if added != "text_time" or kind is not None or options["num_class_embeds"] is not None:
            raise SourceError("unsupported", f"addition_embed_type = {added!r}", where="addition_embed_type")
        return "mlp", wide
    if kind is None:
        classes = options["num_class_embeds"]
        return ("none", None) if classes is None else ("table", classes)
    table = {"timestep": ("timestep", None), "identity": ("identity", None)}
    if "projection_class_embeddings_input_dim" in options:
        table |= {"projection": ("mlp", wide), "simple_projection": ("linear", wide)}
    return known(kind, table, "class_embed_type")  # type: ignore[no-any-return]


def unet_to_diffusers(config: UNetConfig, vector: str = "add_embedding", size_dim: int = 256) -> dict[str, Any]:
    """config.json of the diffusers class that has this U-Net.

    Args:
        vector: where an "mlp" vector goes, as for `unet_diffusers`.
        size_dim: width of one number's code in SDXL's vector.

    Raises:
        SourceError: neither class can express it.
    """
    kinds = config.attention or ("none",) * config.levels
    cross = "cross" in (*kinds, config.mid_kind)
    residual = [bool(at(config.residual_resample, level)) for level in range(config.levels)]
    if not config.resample_conv or config.mid_heads not in (
        None,
        config.heads_at(config.levels - 1, config.widths[-1]),
    ):
        raise _inexpressible("pooling without convolution, or heads of the middle by a rule of its own")
    shared: dict[str, Any] = {
        "in_channels": config.in_channels or config.channels,
        "out_channels": config.out_channels or config.channels,
        "block_out_channels": list(config.widths),
        "layers_per_block": list(config.blocks) if isinstance(config.blocks, tuple) else config.blocks,
        "downsample_padding": config.down_padding,
        "norm_num_groups": config.norm_groups,
        "norm_eps": config.norm_eps,
        "dropout": config.dropout,
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
        "time_embedding_dim": config.time_dim,
        "flip_sin_to_cos": config.cos_first,
        "freq_shift": int(config.freq_shift),
        "act_fn": "silu",
    }
    shared |= _block_types(kinds, residual, cross)
    return shared | (_write_cross(config, kinds, vector, size_dim) if cross else _write_plain(config, kinds, residual))


def _inexpressible(what: str) -> SourceError:
    return SourceError("not-expressible", f"diffusers has no U-Net with {what}", where="denoiser")


def _block_types(kinds: tuple[Any, ...], residual: list[bool], cross: bool) -> dict[str, Any]:
    def name(table: Mapping[str, Any], kind: str, res: bool) -> str:
        if res and (kind == "cross" or (kind == "self" and cross)):
            raise _inexpressible(f"residual resampling beside {kind}-attention")
        return next(n for n, entry in table.items() if entry == (kind, res and kind == "none"))

    pairs = list(zip(kinds, residual, strict=True))
    return {
        "down_block_types": [name(_DOWN, k, r) for k, r in pairs],
        "up_block_types": [name(_UP, k, r) for k, r in reversed(pairs)],
    }


def _write_cross(config: UNetConfig, kinds: tuple[Any, ...], vector: str, size_dim: int) -> dict[str, Any]:
    if not takes_context(config) or config.mid_kind in ("self", "none"):
        raise _inexpressible("cross-attention without context, or this middle")
    levels = range(config.levels)
    heads = [config.heads_at(level, config.widths[level]) for level in levels]
    numbers = [config.widths[i] // heads[i] if kinds[i] == "self" else heads[i] for i in levels]
    depth = [at(config.depth, level) for level in levels]
    if config.mid_depth not in (None, depth[-1]):
        if kinds[-1] == "cross":
            raise _inexpressible("a middle of another depth than the last level")
        depth[-1] = config.mid_depth or depth[-1]
    names = {"none": None, "table": None, "mlp": "projection", "linear": "simple_projection"}
    text_time = config.vector == "mlp" and vector == "add_embedding"
    return {
        "_class_name": "UNet2DConditionModel",
        "mid_block_type": None if config.mid_kind == "absent" else "UNetMidBlock2DCrossAttn",
        "cross_attention_dim": config.context_dim,
        "transformer_layers_per_block": depth,
        "attention_head_dim": numbers,
        "use_linear_projection": config.linear_projections,
        "upcast_attention": config.upcast_attention,
        "class_embed_type": None if text_time else names.get(config.vector, config.vector),
        "num_class_embeds": config.vector_dim if config.vector == "table" else None,
        "addition_embed_type": "text_time" if text_time else None,
        "addition_time_embed_dim": size_dim if text_time else None,
        "projection_class_embeddings_input_dim": config.vector_dim if config.vector in ("mlp", "linear") else None,
    }


def _write_plain(config: UNetConfig, kinds: tuple[Any, ...], residual: list[bool]) -> dict[str, Any]:
    pairs = [(config.heads_at(i, w), w) for i, w in enumerate(config.widths) if kinds[i] == "self"]
    pairs += [(config.heads_at(config.levels - 1, config.widths[-1]), config.widths[-1])]
    sizes = {width // heads for heads, width in pairs}
    inner = {r for k, r in zip(kinds, residual, strict=True) if k == "self"}
    if len(sizes) > 1 or len(inner) > 1 or config.vector in ("mlp", "linear") or isinstance(config.blocks, tuple):
        raise _inexpressible("heads, resampling, blocks or vectors that differ between levels")
    groups = config.norm_groups if config.mid_groups is None else config.mid_groups
    if (groups == 0) > config.scale_shift:
        raise _inexpressible("a middle without norm")
    kind = "resnet" if True in inner else "conv"
    return {
        "_class_name": "UNet2DModel",
        "mid_block_type": None if config.mid_kind == "absent" else "UNetMidBlock2D",
        "add_attention": config.mid_kind != "none",
        "attention_head_dim": sizes.pop(),
        "attn_norm_num_groups": groups or None,
        "downsample_type": kind,
        "upsample_type": kind,
        "class_embed_type": config.vector if config.vector in ("timestep", "identity") else None,
        "num_class_embeds": config.vector_dim if config.vector == "table" else None,
    }
