"""config.json of diffusers' U-Nets, read and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ldmkit_denoisers.conditions import takes_context
from ldmkit_denoisers.config import UNetConfig, at

from ldmkit import SourceError, SpecError
from ldmkit_checkpoints.diffusers.unet_additions import inexpressible, read_additions, write_additions
from ldmkit_checkpoints.diffusers.unet_fields import CROSS, PLAIN, read_options, refuse

_DOWN = {
    "DownBlock2D": ("none", False),
    "AttnDownBlock2D": ("self", False),
    "CrossAttnDownBlock2D": ("cross", False),
    "ResnetDownsampleBlock2D": ("none", True),
    "SimpleCrossAttnDownBlock2D": ("joint", True),
}
_UP = {
    "UpBlock2D": ("none", False),
    "AttnUpBlock2D": ("self", False),
    "CrossAttnUpBlock2D": ("cross", False),
    "ResnetUpsampleBlock2D": ("none", True),
    "SimpleCrossAttnUpBlock2D": ("joint", True),
}
_MIDDLE = {
    "UNetMidBlock2DCrossAttn": "cross",
    "UNetMidBlock2DSimpleCrossAttn": "joint",
    "UNetMidBlock2D": "single",
    None: "absent",
}
_NATIVE = {
    "widths": "block_out_channels",
    "blocks": "layers_per_block",
    "depth": "transformer_layers_per_block",
    "heads": "attention_head_dim",
    "context_dim": "cross_attention_dim",
    "norm_groups": "norm_num_groups",
    "mid_groups": "attn_norm_num_groups",
    "time_dim": "time_embedding_dim",
    "vector_dim": "projection_class_embeddings_input_dim",
    "pool_heads": "addition_embed_type_num_heads",
    "context_groups": "cross_attention_norm",
    "context_source": "encoder_hid_dim",
    "image_dim": "encoder_hid_dim",
    "output_scale": "resnet_out_scale_factor",
    "mid_scale": "mid_block_scale_factor",
}
"""Field of UNetConfig -> name in diffusers, for errors; other fields have the same name."""


def unet_from_diffusers(config: Mapping[str, Any], latent_channels: int | None = None) -> UNetConfig:
    """The native config for a UNet2DModel's or UNet2DConditionModel's config.json.

    Args:
        latent_channels: channels of x, the other input channels are the plane; None: the smaller of in and out.

    Raises:
        SourceError: another class, an unknown key or an unsupported option.
    """
    cross = _is_conditional(config)
    options = read_options(config, CROSS if cross else PLAIN)
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
        "time_table": _time_table(options),
        "vector": vector,
        "vector_dim": vector_dim,
    }
    own = _cross_only(options, widths, kinds) if cross else _plain_only(options, widths, kinds)
    try:
        return UNetConfig.of({**shared, **own}, "config.json")
    except SpecError as error:
        native = (error.where or "").removeprefix("config.json").strip(".").split("[")[0]
        name = _NATIVE.get(native, native)
        what = f"{name} = {options[name]!r}: {error.what}" if name in options else error.what
        raise SourceError("unsupported", what, where=name or "config.json", fits=error.fits) from None


def diffusers_options(config: Mapping[str, Any], keys: Iterable[str] = ()) -> dict[str, Any]:
    """Options of `unet_diffusers` from config.json and the file's keys."""
    added = config.get("addition_embed_type") == "text_time"
    deprecated = any(".attentions.0.query." in key for key in keys)
    return {"vector": "add_embedding" if added else "class_embedding", "deprecated": deprecated}


def listed(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(value) if isinstance(value, list) else value


def known(name: str | None, table: Mapping[Any, Any], where: str) -> Any:
    """The table entry of a block type; files of the first releases prefix its name with UNetRes.

    Raises:
        SourceError: an unsupported block type.
    """
    name = name if name is None else name.removeprefix("UNetRes")
    if name not in table:
        raise refuse(where, name, ", ".join(map(str, table)))
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
        what = "up_block_types do not mirror down_block_types"
        raise SourceError("unsupported", what, where="up_block_types")
    if residual_down[1:-1] != residual_up[1:-1]:
        what = "downsampling and upsampling are of different types"
        raise SourceError("unsupported", what, where="upsample_type")
    return tuple(k for k, _ in down), (*residual_down[:-1], residual_up[-1])


def _plain_only(options: Mapping[str, Any], widths: tuple[int, ...], kinds: tuple[Any, ...]) -> dict[str, Any]:
    size = options["attention_head_dim"]
    mid = known(options["mid_block_type"], {"UNetMidBlock2D": "self", None: "absent"}, "mid_block_type")
    mid = "none" if mid == "self" and not options["add_attention"] else mid
    for key in ("downsample_type", "upsample_type"):
        if options[key] not in ("conv", "resnet"):
            raise refuse(key, options[key], "conv, resnet")
    groups = options["attn_norm_num_groups"]
    if groups is None and options["resnet_time_scale_shift"] != "default":
        groups = 0
    attended = [*kinds[:-1], "self" if mid == "self" else kinds[-1]]
    return {
        "heads": tuple(_heads(width, size, kind) for width, kind in zip(widths, attended, strict=True)),
        "mid": mid,
        "mid_groups": groups,
    }


def _heads(width: int, size: int | None, kind: str) -> int:
    """Heads of a level with "self" attention, where attention_head_dim is the channels per head."""
    if size is None:
        return 1
    if kind != "none" and width % size:
        raise refuse("attention_head_dim", size, f"a divisor of the {width} channels that attend")
    return max(width // size, 1)


def _cross_only(options: Mapping[str, Any], widths: tuple[int, ...], kinds: tuple[Any, ...]) -> dict[str, Any]:
    numbers, depth = listed(options["attention_head_dim"]), listed(options["transformer_layers_per_block"])
    context = listed(options["cross_attention_dim"])
    if isinstance(context, tuple):
        if len(set(context)) > 1:
            raise refuse("cross_attention_dim", context, "one width for all levels")
        context = context[0]
    mid = known(options["mid_block_type"], _MIDDLE, "mid_block_type")
    last = mid if kinds[-1] == "none" and mid == "joint" else kinds[-1]
    attended = [*((kind, at(numbers, i)) for i, kind in enumerate((*kinds[:-1], last)))]
    attended += [(mid, at(numbers, len(widths) - 1))]
    for width, (kind, heads) in zip((*widths, widths[-1]), attended, strict=True):
        if kind == "cross" and width % heads:
            raise refuse("attention_head_dim", numbers, f"a number of heads that divides {width} channels")
    if any(kind == "cross" and at(depth, level) < 1 for level, kind in enumerate(kinds)) or (
        mid == "cross" and at(depth, len(widths) - 1) < 1
    ):
        raise refuse("transformer_layers_per_block", depth, "1 or more where there is cross-attention")
    for level, kind in enumerate(kinds):
        if kind in ("self", "joint") and at(numbers, level) != at(numbers, len(kinds) - 1 - level):
            raise refuse("attention_head_dim", numbers, "one number: on the way up these blocks read it in reverse")
    heads = [
        _heads(width, number, kind) if kind in ("self", "joint") else number
        for width, (kind, number) in zip((*widths, widths[-1]), attended, strict=True)
    ]
    return {
        "heads": tuple(heads[:-1]),
        "mid": mid,
        "mid_heads": heads[-1],
        "depth": tuple(max(number, 1) for number in depth) if isinstance(depth, tuple) else depth,
        "context_dim": context,
        "linear_projections": options["use_linear_projection"],
        "upcast_attention": options["upcast_attention"],
        **read_additions(options, kinds, mid),
    }


def _time_table(options: Mapping[str, Any]) -> int | None:
    """Rows of the learned table of timesteps; None for sinusoidal codes."""
    kind = options.get("time_embedding_type", "positional")
    if kind not in ("positional", "learned"):
        raise refuse("time_embedding_type", kind, "positional, learned")
    if kind == "positional":
        return None
    if options["num_train_timesteps"] is None:
        raise refuse("num_train_timesteps", None, "a number, which time_embedding_type learned needs")
    return options["num_train_timesteps"]  # type: ignore[no-any-return]


def _vector(options: Mapping[str, Any]) -> tuple[str, int | None]:
    kind, added = options["class_embed_type"], options.get("addition_embed_type")
    wide = options.get("projection_class_embeddings_input_dim")
    if added == "text_time":
        for key in ("class_embed_type", "num_class_embeds"):
            if options[key] is not None:
                raise refuse(key, options[key], "none beside an addition_embed_type")
        for key in ("addition_time_embed_dim", "projection_class_embeddings_input_dim"):
            if options[key] is None:
                raise refuse(key, None, "a width, which addition_embed_type text_time needs")
        return "mlp", wide
    if kind is None:
        classes = options["num_class_embeds"]
        return ("none", None) if classes is None else ("table", classes)
    table = {"timestep": ("timestep", None), "identity": ("identity", None)}
    if "projection_class_embeddings_input_dim" in options:
        table |= {"projection": ("mlp", wide), "simple_projection": ("linear", wide)}
    if kind in ("projection", "simple_projection") and kind in table and wide is None:
        raise refuse("projection_class_embeddings_input_dim", None, f"a width, which class_embed_type {kind} needs")
    return known(kind, table, "class_embed_type")  # type: ignore[no-any-return]


def unet_to_diffusers(config: UNetConfig, vector: str = "add_embedding", size_dim: int = 256) -> dict[str, Any]:
    """config.json of the diffusers class for this U-Net.

    Args:
        vector: module that embeds an "mlp" vector, as for `unet_diffusers`.
        size_dim: width of the code of one number in SDXL's vector.

    Raises:
        SourceError: diffusers cannot express it.
    """
    kinds = config.attention or ("none",) * config.levels
    cross = not {"cross", "joint"}.isdisjoint((*kinds, config.mid_kind))
    residual = [bool(at(config.residual_resample, level)) for level in range(config.levels)]
    if not config.resample_conv or config.mid_heads not in (
        None,
        config.heads_at(config.levels - 1, config.widths[-1]),
    ):
        raise inexpressible("resampling by pooling, or a separate head rule for the middle block")
    if config.code != config.widths[0]:
        raise inexpressible("a timestep code of another width than the first level")
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
    }
    shared |= _block_types(kinds, residual, cross)
    return shared | (
        _write_cross(config, kinds, residual, vector, size_dim) if cross else _write_plain(config, kinds, residual)
    )


def _block_types(kinds: tuple[Any, ...], residual: list[bool], cross: bool) -> dict[str, Any]:
    def name(table: Mapping[str, Any], kind: str, res: bool) -> str:
        if res and (kind == "cross" or (kind == "self" and cross)):
            raise inexpressible(f"residual resampling beside {kind}-attention")
        if kind == "joint" and not res and len(pairs) > 1:
            raise inexpressible("joint attention beside resampling that is not residual")
        return next(n for n, entry in table.items() if entry == (kind, kind == "joint" or (res and kind == "none")))

    pairs = list(zip(kinds, residual, strict=True))
    return {
        "down_block_types": [name(_DOWN, k, r) for k, r in pairs],
        "up_block_types": [name(_UP, k, r) for k, r in reversed(pairs)],
    }


def _write_cross(
    config: UNetConfig, kinds: tuple[Any, ...], residual: list[bool], vector: str, size_dim: int
) -> dict[str, Any]:
    if not takes_context(config) or config.mid_kind in ("self", "none"):
        raise inexpressible("cross-attention without context, or this middle block")
    if config.time_table is not None:
        raise inexpressible("a learned table of timesteps, and cross-attention")
    levels = range(config.levels)
    numbers = _written_numbers(config, kinds)
    if config.mid_only_cross and config.mid_kind == "cross":
        raise inexpressible("a middle whose transformer has no self-attention")
    depth = [at(config.depth, level) for level in levels]
    if config.mid_depth not in (None, depth[-1]):
        if kinds[-1] == "cross":
            raise inexpressible("a middle block deeper or shallower than the last level")
        depth[-1] = config.mid_depth or depth[-1]
    names = {"none": None, "table": None, "mlp": "projection", "linear": "simple_projection"}
    text_time = config.vector == "mlp" and vector == "add_embedding"
    scaled = [kind == "joint" or (kind == "none" and res) for kind, res in zip(kinds, residual, strict=True)]
    return {
        "_class_name": "UNet2DConditionModel",
        "mid_block_type": next(name for name, kind in _MIDDLE.items() if kind == config.mid_kind),
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
        **write_additions(config, scaled, text_time),
    }


def _written_numbers(config: UNetConfig, kinds: tuple[Any, ...]) -> list[int]:
    """attention_head_dim per level: heads of transformers, channels per head of other attentions.

    diffusers reads the latter's in the order of the blocks, which is the levels' in reverse on the way up.
    """
    last, counted = config.levels - 1, ("self", "joint")
    attended = [*kinds[:-1], config.mid_kind if kinds[-1] == "none" else kinds[-1]]
    heads = [config.heads_at(level, width) for level, width in enumerate(config.widths)]
    numbers = [w // n if kind in counted else n for w, n, kind in zip(config.widths, heads, attended, strict=True)]
    differ = config.mid_kind in ("cross", "joint") and (config.mid_kind == "joint") != (attended[-1] in counted)
    if differ and heads[-1] ** 2 != config.widths[-1]:
        raise inexpressible(f"a {config.mid_kind} middle below {kinds[-1]}-attention")
    for level, kind in enumerate(attended):
        if kind in ("none", "absent", "single") and attended[last - level] in counted:
            numbers[level] = numbers[last - level]
    if any(kind in counted and numbers[level] != numbers[last - level] for level, kind in enumerate(kinds)):
        raise inexpressible("channels per head that differ between levels")
    return numbers


def _write_plain(config: UNetConfig, kinds: tuple[Any, ...], residual: list[bool]) -> dict[str, Any]:
    pairs = [(config.heads_at(i, w), w) for i, w in enumerate(config.widths) if kinds[i] == "self"]
    pairs += [(config.heads_at(config.levels - 1, config.widths[-1]), config.widths[-1])]
    sizes = {width // heads for heads, width in pairs}
    inner = {r for k, r in zip(kinds, residual, strict=True) if k == "self"}
    if config.mid_kind == "single":
        raise inexpressible("a middle of one residual block, and no cross-attention")
    if len(sizes) > 1 or len(inner) > 1 or config.vector in ("mlp", "linear") or isinstance(config.blocks, tuple):
        raise inexpressible("heads, resampling, blocks or vectors that differ between levels")
    scales = {at(config.output_scale, level) for level in range(config.levels)} | {config.mid_scale}
    if (config.activation, config.time_activations, scales) != ("silu", None, {1.0}):
        raise inexpressible("another activation or output scale, and no cross-attention")
    groups = config.norm_groups if config.mid_groups is None else config.mid_groups
    if (groups == 0) > config.scale_shift:
        raise inexpressible("a middle block without norm")
    kind = "resnet" if True in inner else "conv"
    return {
        "_class_name": "UNet2DModel",
        "act_fn": "silu",
        "mid_block_type": None if config.mid_kind == "absent" else "UNetMidBlock2D",
        "add_attention": config.mid_kind != "none",
        "attention_head_dim": sizes.pop(),
        "attn_norm_num_groups": groups or None,
        "downsample_type": kind,
        "upsample_type": kind,
        "time_embedding_type": "positional" if config.time_table is None else "learned",
        "num_train_timesteps": config.time_table,
        "class_embed_type": config.vector if config.vector in ("timestep", "identity") else None,
        "num_class_embeds": config.vector_dim if config.vector == "table" else None,
    }
