"""Keys of diffusers' UNet2DModel and UNet2DConditionModel."""

from __future__ import annotations

from ldmkit_denoisers.config import LevelPlan, UNetConfig, down_levels, mid_level, up_levels

from ldmkit_checkpoints.keys import KeyMap, layer, layers, renamed, stacked
from ldmkit_checkpoints.unet_keys import resampling, residual_block, transformer, two_layers

RESIDUAL = {
    "norm_1": "norm1",
    "conv_1": "conv1",
    "emb": "time_emb_proj",
    "norm_2": "norm2",
    "conv_2": "conv2",
    "skip": "conv_shortcut",
}


_POOL = {
    "norm_in": "norm1",
    "to_q": "pool.q_proj",
    "to_k": "pool.k_proj",
    "to_v": "pool.v_proj",
    "proj": "proj",
    "norm_out": "norm2",
}


def unet_diffusers(config: UNetConfig, vector: str = "add_embedding", deprecated: bool = False) -> KeyMap:
    """Keys of diffusers' UNet2DModel and UNet2DConditionModel.

    Args:
        vector: module that embeds an "mlp" vector: `add_embedding` (text_time) or `class_embedding`.
        deprecated: names of attention layers in old files (query, key, value, proj_attn).
    """
    keymap = encoder_diffusers(config, vector, deprecated)
    for position, plan in enumerate(up_levels(config)):
        keymap |= _level(config, plan, f"up.{plan.level}", f"up_blocks.{position}", deprecated)
        foreign = f"up_blocks.{position}.upsamplers.0"
        keymap |= resampling(plan, f"up.{plan.level}.resample", foreign, "conv", RESIDUAL)
    return keymap | layer("norm_out", "conv_norm_out") | layer("conv_out", "conv_out")


def encoder_diffusers(config: UNetConfig, vector: str = "add_embedding", deprecated: bool = False) -> KeyMap:
    """The part shared with ControlNet: embeddings, down blocks and middle block."""
    keymap = layer("conv_in", "conv_in")
    if config.time_table is not None:
        keymap["time_table.table.weight"] = renamed("time_proj.weight")
    keymap |= two_layers("time_embed", "time_embedding.linear_1", "time_embedding.linear_2")
    keymap |= _vector(config, vector) | _additions(config)
    for plan in down_levels(config):
        native, foreign = f"down.{plan.level}", f"down_blocks.{plan.level}"
        keymap |= _level(config, plan, native, foreign, deprecated)
        keymap |= resampling(plan, f"{native}.resample", f"{foreign}.downsamplers.0", "conv", RESIDUAL)
    middle = mid_level(config)
    for i, inputs in enumerate(middle.inputs):
        keymap |= residual_block(f"mid.res.{i}", f"mid_block.resnets.{i}", inputs, middle.width, RESIDUAL)
    no_norm = config.mid_groups == 0
    keymap |= _attention(config, middle, "mid.attn", "mid_block.attentions.0", deprecated, no_norm)
    return keymap


def _level(config: UNetConfig, plan: LevelPlan, native: str, foreign: str, deprecated: bool) -> KeyMap:
    keymap: KeyMap = {}
    for i, inputs in enumerate(plan.inputs):
        keymap |= residual_block(f"{native}.res.{i}", f"{foreign}.resnets.{i}", inputs, plan.width, RESIDUAL)
        keymap |= _attention(config, plan, f"{native}.attn.{i}", f"{foreign}.attentions.{i}", deprecated)
    return keymap


def _attention(
    config: UNetConfig, plan: LevelPlan, native: str, foreign: str, deprecated: bool, no_norm: bool = False
) -> KeyMap:
    if plan.attention == "none":
        return {}
    if plan.attention == "cross":
        return transformer(config, plan, native, foreign)
    if plan.attention == "joint":
        return _joint(config, plan, native, foreign)
    names = ("query", "key", "value") if deprecated else ("to_q", "to_k", "to_v")
    keymap = {} if no_norm else layer(f"{native}.norm", f"{foreign}.group_norm")
    for part in ("weight", "bias"):
        keymap[f"{native}.qkv.{part}"] = stacked([f"{foreign}.{name}.{part}" for name in names])
    return keymap | layer(f"{native}.out", f"{foreign}.{'proj_attn' if deprecated else 'to_out.0'}")


def _joint(config: UNetConfig, plan: LevelPlan, native: str, foreign: str) -> KeyMap:
    own = () if plan.only_cross else ("to_k", "to_v")
    names = {name: name for name in ("to_q", *own)}
    names |= {"norm": "group_norm", "context_k": "add_k_proj", "context_v": "add_v_proj", "to_out": "to_out.0"}
    names |= {"context_norm": "norm_cross"} if config.context_groups else {}
    return layers({f"{native}.{name}": f"{foreign}.{other}" for name, other in names.items()})


def _additions(config: UNetConfig) -> KeyMap:
    """What the context is made of, and what is added to the time embedding beside the vector."""
    names: dict[str, str] = {}
    if config.context_source:
        names["context_proj"] = "encoder_hid_proj"
    if config.image_tokens:
        names |= {"image_tokens.proj": "encoder_hid_proj.image_embeds", "image_tokens.norm": "encoder_hid_proj.norm"}
    if config.image_time:
        names |= {"image_time.proj": "add_embedding.image_proj", "image_time.norm": "add_embedding.image_norm"}
    if not config.pool_heads:
        return layers(names)
    names |= {f"context_pool.{own}": f"add_embedding.{name}" for own, name in _POOL.items()}
    return layers(names) | {"context_pool.position": renamed("add_embedding.pool.positional_embedding")}


def _vector(config: UNetConfig, name: str) -> KeyMap:
    if config.vector == "mlp":
        return two_layers("vector_embed", f"{name}.linear_1", f"{name}.linear_2")
    if config.vector == "timestep":
        return two_layers("vector_embed.mlp", "class_embedding.linear_1", "class_embedding.linear_2")
    if config.vector == "table":
        return {"vector_embed.table.weight": renamed("class_embedding.weight")}
    return layer("vector_embed", "class_embedding") if config.vector == "linear" else {}
