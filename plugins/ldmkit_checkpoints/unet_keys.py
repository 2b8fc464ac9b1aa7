"""Where the published layouts keep the tensors of a U-Net: the CompVis lineage, and diffusers."""

from __future__ import annotations

from ldmkit_denoisers.config import LevelPlan, UNetConfig, down_levels, mid_level, up_levels
from torch import Tensor

from ldmkit_checkpoints.keys import Entry, KeyMap, as_linear, as_linear_1d, prefixed, same, stacked

_COMPVIS_RES = {
    "norm_1": "in_layers.0",
    "conv_1": "in_layers.2",
    "emb": "emb_layers.1",
    "norm_2": "out_layers.0",
    "conv_2": "out_layers.3",
    "skip": "skip_connection",
}
_DIFFUSERS_RES = {
    "norm_1": "norm1",
    "conv_1": "conv1",
    "emb": "time_emb_proj",
    "norm_2": "norm2",
    "conv_2": "conv2",
    "skip": "conv_shortcut",
}
_BLOCK = {
    "norm_1": "norm1",
    "self_attn.to_out": "attn1.to_out.0",
    "norm_2": "norm2",
    "cross_attn.to_out": "attn2.to_out.0",
    "norm_3": "norm3",
    "ff.proj": "ff.net.0.proj",
    "ff.out": "ff.net.2",
}


def unet_compvis(config: UNetConfig, new_attention_order: bool = False) -> KeyMap:
    """Keys of the CompVis / ADM / sgm layout, without the `model.diffusion_model.` prefix.

    Args:
        new_attention_order: attention blocks hold q, k, v one after the other rather than head by head.
    """
    keymap, index = encoder_compvis(config, new_attention_order), 0
    for plan in up_levels(config):
        native = f"up.{plan.level}"
        foreign = ""
        for i, inputs in enumerate(plan.inputs):
            foreign = f"output_blocks.{index}"
            keymap |= _res(f"{native}.res.{i}", f"{foreign}.0", inputs, plan.width, _COMPVIS_RES)
            keymap |= _compvis_attention(config, plan, f"{native}.attn.{i}", f"{foreign}.1", new_attention_order)
            index += 1
        last = f"{foreign}.{1 if plan.attention == 'none' else 2}"
        keymap |= _resample(plan, f"{native}.resample", last, "conv", _COMPVIS_RES)
    return keymap | _both("norm_out", "out.0") | _both("conv_out", "out.2")


def encoder_compvis(config: UNetConfig, new_attention_order: bool = False) -> KeyMap:
    """The part of that layout which a ControlNet shares: embeddings, input blocks, middle."""
    keymap = _both("conv_in", "input_blocks.0.0") | _mlp("time_embed", "time_embed.0", "time_embed.2")
    keymap |= _compvis_vector(config)
    index = 1
    for plan in down_levels(config):
        native = f"down.{plan.level}"
        for i, inputs in enumerate(plan.inputs):
            foreign = f"input_blocks.{index}"
            keymap |= _res(f"{native}.res.{i}", f"{foreign}.0", inputs, plan.width, _COMPVIS_RES)
            keymap |= _compvis_attention(config, plan, f"{native}.attn.{i}", f"{foreign}.1", new_attention_order)
            index += 1
        keymap |= _resample(plan, f"{native}.resample", f"input_blocks.{index}.0", "op", _COMPVIS_RES)
        index += plan.resample != "none"
    middle = mid_level(config)
    if middle.inputs:
        last = 1 if middle.attention == "none" else 2
        keymap |= _res("mid.res.0", "middle_block.0", middle.width, middle.width, _COMPVIS_RES)
        keymap |= _compvis_attention(config, middle, "mid.attn", "middle_block.1", new_attention_order)
        keymap |= _res("mid.res.1", f"middle_block.{last}", middle.width, middle.width, _COMPVIS_RES)
    return keymap


def unet_diffusers(config: UNetConfig, vector: str = "add_embedding", deprecated: bool = False) -> KeyMap:
    """Keys of diffusers' UNet2DModel and UNet2DConditionModel.

    Args:
        vector: name of the module that embeds an "mlp" vector: `add_embedding` (text_time) or `class_embedding`.
        deprecated: attention blocks' names of old files (query, key, value, proj_attn).
    """
    keymap = encoder_diffusers(config, vector, deprecated)
    for position, plan in enumerate(up_levels(config)):
        keymap |= _diffusers_level(config, plan, f"up.{plan.level}", f"up_blocks.{position}", deprecated)
        foreign = f"up_blocks.{position}.upsamplers.0"
        keymap |= _resample(plan, f"up.{plan.level}.resample", foreign, "conv", _DIFFUSERS_RES)
    return keymap | _both("norm_out", "conv_norm_out") | _both("conv_out", "conv_out")


def encoder_diffusers(config: UNetConfig, vector: str = "add_embedding", deprecated: bool = False) -> KeyMap:
    """The part of that layout which a ControlNet shares: embeddings, down blocks, middle."""
    keymap = _both("conv_in", "conv_in")
    keymap |= _mlp("time_embed", "time_embedding.linear_1", "time_embedding.linear_2")
    keymap |= _diffusers_vector(config, vector)
    for plan in down_levels(config):
        native, foreign = f"down.{plan.level}", f"down_blocks.{plan.level}"
        keymap |= _diffusers_level(config, plan, native, foreign, deprecated)
        keymap |= _resample(plan, f"{native}.resample", f"{foreign}.downsamplers.0", "conv", _DIFFUSERS_RES)
    middle = mid_level(config)
    for i, inputs in enumerate(middle.inputs):
        keymap |= _res(f"mid.res.{i}", f"mid_block.resnets.{i}", inputs, middle.width, _DIFFUSERS_RES)
    no_norm = config.mid_groups == 0
    keymap |= _diffusers_attention(config, middle, "mid.attn", "mid_block.attentions.0", deprecated, no_norm)
    return keymap


def _diffusers_level(config: UNetConfig, plan: LevelPlan, native: str, foreign: str, deprecated: bool) -> KeyMap:
    keymap: KeyMap = {}
    for i, inputs in enumerate(plan.inputs):
        keymap |= _res(f"{native}.res.{i}", f"{foreign}.resnets.{i}", inputs, plan.width, _DIFFUSERS_RES)
        keymap |= _diffusers_attention(config, plan, f"{native}.attn.{i}", f"{foreign}.attentions.{i}", deprecated)
    return keymap


def _compvis_attention(config: UNetConfig, plan: LevelPlan, native: str, foreign: str, new_order: bool) -> KeyMap:
    if plan.attention == "none":
        return {}
    if plan.attention == "cross":
        return _transformer(config, plan, native, foreign)
    weight, bias = f"{foreign}.qkv.weight", f"{foreign}.qkv.bias"
    qkv = (as_linear_1d(weight), same(bias)) if new_order else _by_head(weight, bias, plan.heads)
    return {
        **_both(f"{native}.norm", f"{foreign}.norm"),
        f"{native}.qkv.weight": qkv[0],
        f"{native}.qkv.bias": qkv[1],
        f"{native}.out.weight": as_linear_1d(f"{foreign}.proj_out.weight"),
        f"{native}.out.bias": same(f"{foreign}.proj_out.bias"),
    }


def _diffusers_attention(
    config: UNetConfig, plan: LevelPlan, native: str, foreign: str, deprecated: bool, no_norm: bool = False
) -> KeyMap:
    if plan.attention == "none":
        return {}
    if plan.attention == "cross":
        return _transformer(config, plan, native, foreign)
    names = ("query", "key", "value") if deprecated else ("to_q", "to_k", "to_v")
    keymap = {} if no_norm else _both(f"{native}.norm", f"{foreign}.group_norm")
    for part in ("weight", "bias"):
        keymap[f"{native}.qkv.{part}"] = stacked([f"{foreign}.{name}.{part}" for name in names])
    return keymap | _both(f"{native}.out", f"{foreign}.{'proj_attn' if deprecated else 'to_out.0'}")


def _transformer(config: UNetConfig, plan: LevelPlan, native: str, foreign: str) -> KeyMap:
    keymap = _both(f"{native}.norm", f"{foreign}.norm")
    for name in ("proj_in", "proj_out"):
        weight = f"{foreign}.{name}.weight"
        keymap[f"{native}.{name}.weight"] = same(weight) if config.linear_projections else as_linear(weight)
        keymap[f"{native}.{name}.bias"] = same(f"{foreign}.{name}.bias")
    for i in range(plan.depth):
        block = transformer_block()
        keymap |= prefixed(block, f"{native}.blocks.{i}.", f"{foreign}.transformer_blocks.{i}.")
    return keymap


def transformer_block() -> KeyMap:
    """One transformer block; both layouts use these names."""
    keymap: KeyMap = {}
    for native, foreign in _BLOCK.items():
        keymap |= _both(native, foreign)
    for native, foreign in (("self_attn", "attn1"), ("cross_attn", "attn2")):
        for name in ("to_q", "to_k", "to_v"):
            keymap[f"{native}.{name}.weight"] = same(f"{foreign}.{name}.weight")
    return keymap


def _res(native: str, foreign: str, inputs: int, outputs: int, names: dict[str, str]) -> KeyMap:
    keymap: KeyMap = {}
    for name, other in names.items():
        if name != "skip" or inputs != outputs:
            keymap |= _both(f"{native}.{name}", f"{foreign}.{other}")
    return keymap


def _resample(plan: LevelPlan, native: str, foreign: str, conv: str, names: dict[str, str]) -> KeyMap:
    if plan.resample == "residual":
        return _res(native, foreign, plan.width, plan.width, names)
    return _both(f"{native}.conv", f"{foreign}.{conv}") if plan.resample == "conv" else {}


def _compvis_vector(config: UNetConfig) -> KeyMap:
    if config.vector == "mlp":
        return _mlp("vector_embed", "label_emb.0.0", "label_emb.0.2")
    if config.vector == "timestep":
        return _mlp("vector_embed.mlp", "label_emb.1.0", "label_emb.1.2")
    if config.vector == "table":
        return {"vector_embed.table.weight": same("label_emb.weight")}
    return _both("vector_embed", "label_emb") if config.vector == "linear" else {}


def _diffusers_vector(config: UNetConfig, name: str) -> KeyMap:
    if config.vector == "mlp":
        return _mlp("vector_embed", f"{name}.linear_1", f"{name}.linear_2")
    if config.vector == "timestep":
        return _mlp("vector_embed.mlp", "class_embedding.linear_1", "class_embedding.linear_2")
    if config.vector == "table":
        return {"vector_embed.table.weight": same("class_embedding.weight")}
    return _both("vector_embed", "class_embedding") if config.vector == "linear" else {}


def _both(native: str, foreign: str) -> KeyMap:
    return {f"{native}.{part}": same(f"{foreign}.{part}") for part in ("weight", "bias")}


def _mlp(native: str, inner: str, outer: str) -> KeyMap:
    return _both(f"{native}.inner", inner) | _both(f"{native}.outer", outer)


def _by_head(weight: str, bias: str, heads: int) -> tuple[Entry, Entry]:
    """Rows ordered [head, q|k|v, channel] in the file, [q|k|v, head, channel] natively."""

    def read(tensor: Tensor) -> Tensor:
        flat = tensor.flatten(1) if tensor.ndim > 1 else tensor
        return flat.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)

    def write(tensor: Tensor) -> Tensor:
        return tensor.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)

    return (
        Entry((weight,), read, lambda w: (write(w)[..., None],)),
        Entry((bias,), read, lambda b: (write(b),)),
    )
