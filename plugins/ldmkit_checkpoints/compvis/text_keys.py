"""Keys of the conditioners of CompVis and sgm: text encoders, tables, rescalers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit_conditioners.clip_tower import ClipConfig
from ldmkit_conditioners.label import LabelConfig
from ldmkit_conditioners.layout_tokens import LayoutTokensConfig
from ldmkit_conditioners.ldm_text import LdmTextConfig
from ldmkit_conditioners.semantic import SemanticConfig
from ldmkit_conditioners.t5_text import T5TextConfig
from torch import Tensor

from ldmkit_checkpoints.keys import Conversion, KeyMap, layer, renamed, stacked
from ldmkit_checkpoints.transformers.text_keys import QKV, clip_hf_keys, t5_keys


def open_clip_keys(config: ClipConfig) -> KeyMap:
    """open-CLIP's text tower: `transformer.resblocks.*`, packed q, k, v, and a transposed projection."""
    keys: KeyMap = {
        "tower.tokens.weight": renamed("token_embedding.weight"),
        "tower.positions.weight": renamed("positional_embedding"),
        **layer("tower.norm", "ln_final"),
    }
    for i in range(config.layers):
        native, foreign = f"tower.blocks.{i}", f"transformer.resblocks.{i}"
        for name in ("weight", "bias"):
            keys[f"{native}.qkv.{name}"] = renamed(f"{foreign}.attn.in_proj_{name}")
        parts = {"out": "attn.out_proj", "norm1": "ln_1", "norm2": "ln_2", "fc1": "mlp.c_fc", "fc2": "mlp.c_proj"}
        for ours, theirs in parts.items():
            keys.update(layer(f"{native}.{ours}", f"{foreign}.{theirs}"))
    if config.projection is not None:
        keys["tower.projection.weight"] = Conversion(("text_projection",), _transposed, lambda w: (_transposed(w),))
    return keys


def _transposed(weight: Tensor) -> Tensor:
    return weight.t().contiguous()


def bert_keys(config: LdmTextConfig | LayoutTokensConfig) -> KeyMap:
    """CompVis' BERTEmbedder, for `ldm-text` and `layout-tokens`: `transformer.token_emb.weight` ..."""
    head = "transformer."
    keys: KeyMap = {
        "encoder.tokens.weight": renamed(f"{head}token_emb.weight"),
        "encoder.positions.weight": renamed(f"{head}pos_emb.emb.weight"),
        **layer("encoder.norm", f"{head}norm"),
    }
    for i in range(config.layers):
        native = f"encoder.blocks.{i}"
        attention, feed = f"{head}attn_layers.layers.{2 * i}", f"{head}attn_layers.layers.{2 * i + 1}"
        keys[f"{native}.qkv.weight"] = stacked([f"{attention}.1.to_{part}.weight" for part in QKV])
        keys.update(layer(f"{native}.norm1", f"{attention}.0"))
        keys.update(layer(f"{native}.out", f"{attention}.1.to_out"))
        keys.update(layer(f"{native}.norm2", f"{feed}.0"))
        keys.update(layer(f"{native}.fc1", f"{feed}.1.net.0.0"))
        keys.update(layer(f"{native}.fc2", f"{feed}.1.net.2"))
    return keys


def class_embedder_keys(config: LabelConfig) -> KeyMap:
    """CompVis' and sgm's ClassEmbedder: one table."""
    return {"embedding.weight": renamed("embedding.weight")}


def spatial_rescaler_keys(config: SemanticConfig) -> KeyMap:
    """CompVis' SpatialRescaler: its 1x1 convolution, if any."""
    if config.dim is None:
        return {}
    names = ("weight", "bias") if config.bias else ("weight",)
    return {f"channel_mapper.{name}": renamed(f"channel_mapper.{name}") for name in names}


_CONFIGS: dict[str, Any] = {
    "clip-text": (ClipConfig, {"hf": clip_hf_keys, "open-clip": open_clip_keys}),
    "clip-pooled": (ClipConfig, {"hf": clip_hf_keys, "open-clip": open_clip_keys}),
    "ldm-text": (LdmTextConfig, {"bert": bert_keys}),
    "layout-tokens": (LayoutTokensConfig, {"bert": bert_keys}),
    "t5-text": (T5TextConfig, {"hf": t5_keys}),
    "label": (LabelConfig, {"compvis": class_embedder_keys}),
    "semantic": (SemanticConfig, {"compvis": spatial_rescaler_keys}),
}


def conditioner_keys(kind: str, config: Mapping[str, Any], layout: str) -> KeyMap:
    """The `KeyMap` of a conditioner by its registered name; empty if it has no weights.

    Args:
        layout: `PlannedConditioner.layout`; `hf-flat` is `hf` without the prefix `text_model.`.
    """
    if kind not in _CONFIGS:
        return {}
    cls, layouts = _CONFIGS[kind]
    fields = {name: value for name, value in config.items() if name in cls.model_fields}
    if layout == "hf-flat":
        return clip_hf_keys(cls(**fields), level="")
    keys: KeyMap = layouts[layout](cls(**fields))
    return keys
