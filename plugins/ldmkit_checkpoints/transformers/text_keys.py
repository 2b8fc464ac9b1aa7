"""Keys of transformers' CLIP and T5 text encoders."""

from __future__ import annotations

from collections.abc import Iterable

from ldmkit_conditioners.clip_tower import ClipConfig
from ldmkit_conditioners.t5_text import T5TextConfig

from ldmkit_checkpoints.keys import KeyMap, layer, renamed, stacked

QKV = ("q", "k", "v")


def clip_hf_keys(config: ClipConfig, level: str = "text_model.") -> KeyMap:
    """transformers' CLIPTextModel and CLIPTextModelWithProjection.

    Args:
        level: `text_model.`, or empty as in files written by transformers 5 (see `clip_hf_level`).
    """
    keys: KeyMap = {
        "tower.tokens.weight": renamed(f"{level}embeddings.token_embedding.weight"),
        "tower.positions.weight": renamed(f"{level}embeddings.position_embedding.weight"),
        **layer("tower.norm", f"{level}final_layer_norm"),
    }
    keys |= clip_block_keys(config.layers, level)
    if config.projection is not None:
        keys["tower.projection.weight"] = renamed("text_projection.weight")
    return keys


def clip_block_keys(count: int, level: str) -> KeyMap:
    """The blocks of CLIP's text and vision towers, which are the same."""
    keys: KeyMap = {}
    for i in range(count):
        native, foreign = f"tower.blocks.{i}", f"{level}encoder.layers.{i}"
        for name in ("weight", "bias"):
            keys[f"{native}.qkv.{name}"] = stacked([f"{foreign}.self_attn.{part}_proj.{name}" for part in QKV])
        parts = {"out": "self_attn.out_proj", "norm1": "layer_norm1", "norm2": "layer_norm2"}
        for ours, theirs in (parts | {"fc1": "mlp.fc1", "fc2": "mlp.fc2"}).items():
            keys.update(layer(f"{native}.{ours}", f"{foreign}.{theirs}"))
    return keys


def clip_hf_level(keys: Iterable[str]) -> str:
    """The prefix of a CLIP text model's keys: `text_model.` or empty, for `clip_hf_keys`."""
    return "text_model." if any(key.startswith("text_model.") for key in keys) else ""


def t5_keys(config: T5TextConfig) -> KeyMap:
    """transformers' T5EncoderModel; the native keys are the same, except for `shared.weight`."""
    keys = {
        "encoder.embed_tokens.weight": renamed("shared.weight"),
        "encoder.final_layer_norm.weight": renamed("encoder.final_layer_norm.weight"),
    }
    gated = config.feed_forward == "gated-gelu"
    for i in range(config.layers):
        names = [f"layer.0.SelfAttention.{part}.weight" for part in (*QKV, "o")]
        names += ["layer.0.layer_norm.weight", "layer.1.layer_norm.weight", "layer.1.DenseReluDense.wo.weight"]
        names += [f"layer.1.DenseReluDense.{part}.weight" for part in (("wi_0", "wi_1") if gated else ("wi",))]
        if i == 0:
            names.append("layer.0.SelfAttention.relative_attention_bias.weight")
        keys.update({key: renamed(key) for key in (f"encoder.block.{i}.{name}" for name in names)})
    return keys
