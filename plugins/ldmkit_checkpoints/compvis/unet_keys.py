"""Keys of a U-Net in the layout of CompVis, ADM and sgm."""

from __future__ import annotations

from ldmkit_denoisers.config import LevelPlan, UNetConfig, down_levels, mid_level, up_levels
from torch import Tensor

from ldmkit_checkpoints.keys import Conversion, KeyMap, as_linear_1d, layer, renamed
from ldmkit_checkpoints.unet_keys import resampling, residual_block, transformer, two_layers

_RESIDUAL = {
    "norm_1": "in_layers.0",
    "conv_1": "in_layers.2",
    "emb": "emb_layers.1",
    "norm_2": "out_layers.0",
    "conv_2": "out_layers.3",
    "skip": "skip_connection",
}


def unet_compvis(config: UNetConfig, new_attention_order: bool = False) -> KeyMap:
    """Keys of the CompVis / ADM / sgm layout, without the `model.diffusion_model.` prefix.

    Args:
        new_attention_order: attention blocks store q, k, v one after the other, not per head.
    """
    keymap, index = encoder_compvis(config, new_attention_order), 0
    for plan in up_levels(config):
        native = f"up.{plan.level}"
        foreign = ""
        for i, inputs in enumerate(plan.inputs):
            foreign = f"output_blocks.{index}"
            keymap |= residual_block(f"{native}.res.{i}", f"{foreign}.0", inputs, plan.width, _RESIDUAL)
            keymap |= _attention(config, plan, f"{native}.attn.{i}", f"{foreign}.1", new_attention_order)
            index += 1
        last = f"{foreign}.{1 if plan.attention == 'none' else 2}"
        keymap |= resampling(plan, f"{native}.resample", last, "conv", _RESIDUAL)
    return keymap | layer("norm_out", "out.0") | layer("conv_out", "out.2")


def encoder_compvis(config: UNetConfig, new_attention_order: bool = False) -> KeyMap:
    """The part shared with ControlNet: embeddings, input blocks and middle block."""
    keymap = layer("conv_in", "input_blocks.0.0") | two_layers("time_embed", "time_embed.0", "time_embed.2")
    keymap |= _vector(config)
    index = 1
    for plan in down_levels(config):
        native = f"down.{plan.level}"
        for i, inputs in enumerate(plan.inputs):
            foreign = f"input_blocks.{index}"
            keymap |= residual_block(f"{native}.res.{i}", f"{foreign}.0", inputs, plan.width, _RESIDUAL)
            keymap |= _attention(config, plan, f"{native}.attn.{i}", f"{foreign}.1", new_attention_order)
            index += 1
        keymap |= resampling(plan, f"{native}.resample", f"input_blocks.{index}.0", "op", _RESIDUAL)
        index += plan.resample != "none"
    middle = mid_level(config)
    if middle.inputs:
        last = 1 if middle.attention == "none" else 2
        keymap |= residual_block("mid.res.0", "middle_block.0", middle.width, middle.width, _RESIDUAL)
        keymap |= _attention(config, middle, "mid.attn", "middle_block.1", new_attention_order)
    if len(middle.inputs) > 1:
        keymap |= residual_block("mid.res.1", f"middle_block.{last}", middle.width, middle.width, _RESIDUAL)
    return keymap


def _attention(config: UNetConfig, plan: LevelPlan, native: str, foreign: str, new_order: bool) -> KeyMap:
    if plan.attention == "none":
        return {}
    if plan.attention == "cross":
        return transformer(config, plan, native, foreign)
    weight, bias = f"{foreign}.qkv.weight", f"{foreign}.qkv.bias"
    qkv = (as_linear_1d(weight), renamed(bias)) if new_order else _by_head(weight, bias, plan.heads)
    return {
        **layer(f"{native}.norm", f"{foreign}.norm"),
        f"{native}.qkv.weight": qkv[0],
        f"{native}.qkv.bias": qkv[1],
        f"{native}.out.weight": as_linear_1d(f"{foreign}.proj_out.weight"),
        f"{native}.out.bias": renamed(f"{foreign}.proj_out.bias"),
    }


def _vector(config: UNetConfig) -> KeyMap:
    if config.vector == "mlp":
        return two_layers("vector_embed", "label_emb.0.0", "label_emb.0.2")
    if config.vector == "timestep":
        return two_layers("vector_embed.mlp", "label_emb.1.0", "label_emb.1.2")
    if config.vector == "table":
        return {"vector_embed.table.weight": renamed("label_emb.weight")}
    return layer("vector_embed", "label_emb") if config.vector == "linear" else {}


def _by_head(weight: str, bias: str, heads: int) -> tuple[Conversion, Conversion]:
    """Rows are ordered [head, q|k|v, channel] in the file, [q|k|v, head, channel] natively."""

    def read(tensor: Tensor) -> Tensor:
        flat = tensor.flatten(1) if tensor.ndim > 1 else tensor
        return flat.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)

    def write(tensor: Tensor) -> Tensor:
        return tensor.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)

    return (
        Conversion((weight,), read, lambda w: (write(w)[..., None],)),
        Conversion((bias,), read, lambda b: (write(b),)),
    )
