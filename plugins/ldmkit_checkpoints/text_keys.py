"""Native keys of conditioners <-> published layouts: text towers, the paper's transformer, tables and rescalers.

Every function takes the native config and returns the `KeyMap` of one layout, without a prefix:
`cond_stage_model.`, `conditioner.embedders.0.` and the like are the caller's to add with `keys.prefixed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ldmkit_conditioners.clip_tower import ClipConfig
from ldmkit_conditioners.label import LabelConfig
from ldmkit_conditioners.layout_tokens import LayoutTokensConfig
from ldmkit_conditioners.ldm_text import LdmTextConfig
from ldmkit_conditioners.semantic import SemanticConfig
from ldmkit_conditioners.t5_text import T5TextConfig
from torch import Tensor

from ldmkit_checkpoints.keys import Entry, KeyMap, same, stacked

_QKV = ("q", "k", "v")


def _pair(native: str, foreign: str) -> Iterator[tuple[str, Entry]]:
    for name in ("weight", "bias"):
        yield f"{native}.{name}", same(f"{foreign}.{name}")


def clip_hf_keys(config: ClipConfig, level: str = "text_model.") -> KeyMap:
    """transformers' CLIPTextModel and CLIPTextModelWithProjection.

    Args:
        level: `text_model.`, or empty as CLIPTextModel names its tensors since transformers 5 (`clip_hf_level`).
    """
    keys: KeyMap = {
        "tower.tokens.weight": same(f"{level}embeddings.token_embedding.weight"),
        "tower.positions.weight": same(f"{level}embeddings.position_embedding.weight"),
        **dict(_pair("tower.norm", f"{level}final_layer_norm")),
    }
    for i in range(config.layers):
        native, foreign = f"tower.blocks.{i}", f"{level}encoder.layers.{i}"
        for name in ("weight", "bias"):
            keys[f"{native}.qkv.{name}"] = stacked([f"{foreign}.self_attn.{part}_proj.{name}" for part in _QKV])
        parts = {"out": "self_attn.out_proj", "norm1": "layer_norm1", "norm2": "layer_norm2"}
        for ours, theirs in (parts | {"fc1": "mlp.fc1", "fc2": "mlp.fc2"}).items():
            keys.update(_pair(f"{native}.{ours}", f"{foreign}.{theirs}"))
    if config.projection is not None:
        keys["tower.projection.weight"] = same("text_projection.weight")
    return keys


def clip_hf_level(keys: Iterable[str]) -> str:
    """Whether a file of a CLIP text model has the level `text_model.` (`level` of `clip_hf_keys`)."""
    return "text_model." if any(key.startswith("text_model.") for key in keys) else ""


def open_clip_keys(config: ClipConfig) -> KeyMap:
    """open-CLIP's text tower: `transformer.resblocks.*`, packed projections, a projection stored transposed."""
    keys: KeyMap = {
        "tower.tokens.weight": same("token_embedding.weight"),
        "tower.positions.weight": same("positional_embedding"),
        **dict(_pair("tower.norm", "ln_final")),
    }
    for i in range(config.layers):
        native, foreign = f"tower.blocks.{i}", f"transformer.resblocks.{i}"
        for name in ("weight", "bias"):
            keys[f"{native}.qkv.{name}"] = same(f"{foreign}.attn.in_proj_{name}")
        parts = {"out": "attn.out_proj", "norm1": "ln_1", "norm2": "ln_2", "fc1": "mlp.c_fc", "fc2": "mlp.c_proj"}
        for ours, theirs in parts.items():
            keys.update(_pair(f"{native}.{ours}", f"{foreign}.{theirs}"))
    if config.projection is not None:
        keys["tower.projection.weight"] = Entry(("text_projection",), _transposed, lambda w: (_transposed(w),))
    return keys


def _transposed(weight: Tensor) -> Tensor:
    return weight.t().contiguous()


def bert_keys(config: LdmTextConfig | LayoutTokensConfig) -> KeyMap:
    """CompVis' BERTEmbedder, of LdmText as of LayoutTokens: `transformer.token_emb.weight` ..."""
    head = "transformer."
    keys: KeyMap = {
        "encoder.tokens.weight": same(f"{head}token_emb.weight"),
        "encoder.positions.weight": same(f"{head}pos_emb.emb.weight"),
        **dict(_pair("encoder.norm", f"{head}norm")),
    }
    for i in range(config.layers):
        native = f"encoder.blocks.{i}"
        attention, feed = f"{head}attn_layers.layers.{2 * i}", f"{head}attn_layers.layers.{2 * i + 1}"
        keys[f"{native}.qkv.weight"] = stacked([f"{attention}.1.to_{part}.weight" for part in _QKV])
        keys.update(_pair(f"{native}.norm1", f"{attention}.0"))
        keys.update(_pair(f"{native}.out", f"{attention}.1.to_out"))
        keys.update(_pair(f"{native}.norm2", f"{feed}.0"))
        keys.update(_pair(f"{native}.fc1", f"{feed}.1.net.0.0"))
        keys.update(_pair(f"{native}.fc2", f"{feed}.1.net.2"))
    return keys


def bert_diffusers_keys(config: LdmTextConfig | LayoutTokensConfig) -> KeyMap:
    """The same transformer as diffusers' LDMBertModel."""
    keys: KeyMap = {
        "encoder.tokens.weight": same("model.embed_tokens.weight"),
        "encoder.positions.weight": same("model.embed_positions.weight"),
        **dict(_pair("encoder.norm", "model.layer_norm")),
    }
    for i in range(config.layers):
        native, foreign = f"encoder.blocks.{i}", f"model.layers.{i}"
        keys[f"{native}.qkv.weight"] = stacked([f"{foreign}.self_attn.{part}_proj.weight" for part in _QKV])
        parts = {"out": "self_attn.out_proj", "norm1": "self_attn_layer_norm", "norm2": "final_layer_norm"}
        for ours, theirs in (parts | {"fc1": "fc1", "fc2": "fc2"}).items():
            keys.update(_pair(f"{native}.{ours}", f"{foreign}.{theirs}"))
    return keys


def t5_keys(config: T5TextConfig) -> KeyMap:
    """transformers' T5EncoderModel: its own names, the embedding under `shared.weight`."""
    keys = {
        "encoder.embed_tokens.weight": same("shared.weight"),
        "encoder.final_layer_norm.weight": same("encoder.final_layer_norm.weight"),
    }
    gated = config.feed_forward == "gated-gelu"
    for i in range(config.layers):
        names = [f"layer.0.SelfAttention.{part}.weight" for part in (*_QKV, "o")]
        names += ["layer.0.layer_norm.weight", "layer.1.layer_norm.weight", "layer.1.DenseReluDense.wo.weight"]
        names += [f"layer.1.DenseReluDense.{part}.weight" for part in (("wi_0", "wi_1") if gated else ("wi",))]
        if i == 0:
            names.append("layer.0.SelfAttention.relative_attention_bias.weight")
        keys.update({key: same(key) for key in (f"encoder.block.{i}.{name}" for name in names)})
    return keys


def class_embedder_keys(config: LabelConfig) -> KeyMap:
    """CompVis' and sgm's ClassEmbedder: one table."""
    return {"embedding.weight": same("embedding.weight")}


def spatial_rescaler_keys(config: SemanticConfig) -> KeyMap:
    """CompVis' SpatialRescaler: the 1x1 convolution, where there is one."""
    if config.dim is None:
        return {}
    names = ("weight", "bias") if config.bias else ("weight",)
    return {f"channel_mapper.{name}": same(f"channel_mapper.{name}") for name in names}


_CONFIGS: dict[str, Any] = {
    "clip-text": (ClipConfig, {"hf": clip_hf_keys, "open-clip": open_clip_keys}),
    "clip-pooled": (ClipConfig, {"hf": clip_hf_keys, "open-clip": open_clip_keys}),
    "ldm-text": (LdmTextConfig, {"bert": bert_keys, "ldm-bert": bert_diffusers_keys}),
    "layout-tokens": (LayoutTokensConfig, {"bert": bert_keys, "ldm-bert": bert_diffusers_keys}),
    "t5-text": (T5TextConfig, {"hf": t5_keys}),
    "label": (LabelConfig, {"compvis": class_embedder_keys}),
    "semantic": (SemanticConfig, {"compvis": spatial_rescaler_keys}),
}


def conditioner_keys(kind: str, config: Mapping[str, Any], layout: str) -> KeyMap:
    """The `KeyMap` of any conditioner by its registered name; empty for one without weights.

    Args:
        layout: `Planned.layout` of `text_config`; `hf-flat` is `hf` without `text_model.`, `ldm-bert` is diffusers'.
    """
    if kind not in _CONFIGS:
        return {}
    cls, layouts = _CONFIGS[kind]
    fields = {name: value for name, value in config.items() if name in cls.model_fields}
    if layout == "hf-flat":
        return clip_hf_keys(cls(**fields), level="")
    keys: KeyMap = layouts[layout](cls(**fields))
    return keys


def ignorable_conditioner_key(key: str) -> str | None:
    """Why a key of a published conditioner (with or without its prefix) may be left unread; None if it may not."""
    last = key.rsplit(".", 1)[-1]
    if last in ("position_ids", "attn_mask"):
        return "a constant that older versions stored"
    if last == "logit_scale":
        return "training only: temperature of the contrastive loss"
    if ".to_logits." in f".{key}":
        return "training only: head of the language model"
    if last == "text_projection" or key.endswith("text_projection.weight"):
        return "projection of the pooled state, which this model does not read"
    if ".visual." in f".{key}" or key.startswith(("vision_model.", "visual_projection.")):
        return "picture tower of the text model"
    if key.endswith("encoder.embed_tokens.weight"):
        return "the same tensor as shared.weight"
    return None
