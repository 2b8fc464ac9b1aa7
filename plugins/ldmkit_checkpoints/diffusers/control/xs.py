"""diffusers' ControlNetXSAdapter: config.json and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit_adapters.xs.network import XSConfig
from ldmkit_denoisers.config import LevelPlan, at

from ldmkit import PartSpec, SourceError
from ldmkit_checkpoints.conditioners import hint_of
from ldmkit_checkpoints.config_fields import checked, known_only
from ldmkit_checkpoints.diffusers.control.inferred import Shapes
from ldmkit_checkpoints.diffusers.controlnet import hint_keys
from ldmkit_checkpoints.diffusers.parts import Component
from ldmkit_checkpoints.diffusers.unet_fields import refuse
from ldmkit_checkpoints.diffusers.unet_keys import RESIDUAL
from ldmkit_checkpoints.keys import KeyMap, layer, layers
from ldmkit_checkpoints.unet_keys import residual_block, transformer, two_layers

FIRST = "control_to_base_for_conv_in.weight"
"""Key that every network of this kind has."""

_FIELDS: dict[str, Any] = {
    "conditioning_channels": 3,
    "conditioning_channel_order": "rgb",
    "conditioning_embedding_out_channels": (16, 32, 96, 256),
    "time_embedding_mix": 1.0,
    "learn_time_embedding": False,
    "num_attention_heads": 4,
    "block_out_channels": (4, 8, 16, 16),
    "base_block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 1024,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "sample_size": 96,
    "transformer_layers_per_block": 1,
    "upcast_attention": True,
    "max_norm_num_groups": 32,
    "use_linear_projection": True,
}
"""diffusers' fields and defaults."""

_NAMES = {
    "hint_channels": "conditioning_channels",
    "order": "conditioning_channel_order",
    "hint_widths": "conditioning_embedding_out_channels",
    "time_mix": "time_embedding_mix",
    "learn_time": "learn_time_embedding",
    "heads": "num_attention_heads",
    "widths": "block_out_channels",
    "base_widths": "base_block_out_channels",
    "depth": "transformer_layers_per_block",
    "upcast_attention": "upcast_attention",
    "groups": "max_norm_num_groups",
    "linear_projections": "use_linear_projection",
}
"""Native field -> diffusers' field."""

_KINDS = {"DownBlock2D": "none", "CrossAttnDownBlock2D": "cross"}


def xs_component(config: Mapping[str, Any], shapes: Shapes, where: str) -> Component:
    """ControlNetXSAdapter from its config.json.

    Raises:
        SourceError: an unknown field, or a value with which diffusers' model does not run.
    """
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    known_only(given, _FIELDS, where)
    fields = {**_FIELDS, **given}
    kinds = fields["down_block_types"]
    if not isinstance(kinds, (list, tuple)) or any(kind not in _KINDS for kind in kinds):
        raise refuse("down_block_types", kinds, ", ".join(_KINDS))
    context = fields["cross_attention_dim"]
    if isinstance(context, (list, tuple)):
        if len(set(context)) != 1:
            raise refuse("cross_attention_dim", context, "one width for all levels")
        context = context[0]
    native = {name: _tuple(fields[key]) for name, key in _NAMES.items()}
    native |= {"attention": tuple(_KINDS[kind] for kind in kinds), "context_dim": context}
    data = checked(XSConfig, native, where, _NAMES)
    made = XSConfig.of(data)
    return Component(PartSpec(type="controlnet-xs", config=data), xs_keys(made), slots=hint_of(made.hint_channels))


def xs_of_keys(shapes: Shapes, where: str) -> Component:
    """Refuse keys alone.

    Raises:
        SourceError: `config-needed`: the number of heads, and more, is not in the keys.
    """
    what, fits = "a ControlNet-XS without its config.json, which tells its heads", "diffusers' folder of it"
    raise SourceError("config-needed", what, where=where, fits=fits)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def xs_keys(config: XSConfig) -> KeyMap:
    """Keys of diffusers' ControlNetXSAdapter."""
    keymap = hint_keys(config.hint_widths)
    names = {"conv_in": "conv_in", "to_base_in": "control_to_base_for_conv_in"}
    if config.learn_time:
        keymap |= two_layers("time_embed", "time_embedding.linear_1", "time_embedding.linear_2")
    for level in range(config.levels):
        keymap |= _level(config, level)
    keymap |= _middle(config)
    for place in range(len(config.joins())):
        block, i = divmod(len(config.joins()) - 1 - place, config.blocks + 1)
        names[f"joins.{place}"] = f"up_connections.{block}.ctrl_to_base.{i}"
    return keymap | layers(names)


def _level(config: XSConfig, level: int) -> KeyMap:
    own, theirs, last = f"down.{level}", f"down_blocks.{level}", level == config.levels - 1
    keymap: KeyMap = {} if last else layer(f"{own}.resample", f"{theirs}.downsamplers.conv")
    for i in range(config.blocks):  # their first convolution always takes more channels than it gives
        keymap |= residual_block(f"{own}.res.{i}", f"{theirs}.resnets.{i}", 0, 1, RESIDUAL)
        if config.attention[level] == "cross":
            keymap |= transformer(config, _plan(config, level), f"{own}.attn.{i}", f"{theirs}.attentions.{i}")
    names = {}
    for i in range(config.blocks + (not last)):
        names |= {
            f"{own}.to_control.{i}": f"{theirs}.base_to_ctrl.{i}",
            f"{own}.to_base.{i}": f"{theirs}.ctrl_to_base.{i}",
        }
    return keymap | layers(names)


def _middle(config: XSConfig) -> KeyMap:
    keymap = layers({"mid.to_control": "mid_block.base_to_ctrl", "mid.to_base": "mid_block.ctrl_to_base"})
    for i in range(2):
        keymap |= residual_block(f"mid.res.{i}", f"mid_block.midblock.resnets.{i}", i, 1, RESIDUAL)
    plan = _plan(config, config.levels - 1)
    return keymap | transformer(config, plan, "mid.attn", "mid_block.midblock.attentions.0")


def _plan(config: XSConfig, level: int) -> LevelPlan:
    width = config.widths[level]
    return LevelPlan(level, width, (width,), "cross", at(config.depth, level), at(config.heads, level), "none")
