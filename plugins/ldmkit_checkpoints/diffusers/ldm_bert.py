"""diffusers' LDMBertModel, the text encoder of latent diffusion: config.json and keys, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit_conditioners.bpe import bert_vocabulary
from ldmkit_conditioners.layout_tokens import LayoutTokensConfig
from ldmkit_conditioners.ldm_text import LdmText, LdmTextConfig

from ldmkit_checkpoints.keys import KeyMap, layer, renamed, stacked
from ldmkit_checkpoints.transformers.text_fields import read_fields, refuse
from ldmkit_checkpoints.transformers.text_keys import QKV


def bert_diffusers_keys(config: LdmTextConfig | LayoutTokensConfig) -> KeyMap:
    """Keys of diffusers' LDMBertModel."""
    keys: KeyMap = {
        "encoder.tokens.weight": renamed("model.embed_tokens.weight"),
        "encoder.positions.weight": renamed("model.embed_positions.weight"),
        **layer("encoder.norm", "model.layer_norm"),
    }
    for i in range(config.layers):
        native, foreign = f"encoder.blocks.{i}", f"model.layers.{i}"
        keys[f"{native}.qkv.weight"] = stacked([f"{foreign}.self_attn.{part}_proj.weight" for part in QKV])
        parts = {"out": "self_attn.out_proj", "norm1": "self_attn_layer_norm", "norm2": "final_layer_norm"}
        for ours, theirs in (parts | {"fc1": "fc1", "fc2": "fc2"}).items():
            keys.update(layer(f"{native}.{ours}", f"{foreign}.{theirs}"))
    return keys


LDM_ROW = 77
"""Sequence length of diffusers' LDMTextToImagePipeline, whatever its tokenizer says."""

_LDM_BERT = {
    "vocab_size": "vocab_size",
    "dim": "d_model",
    "layers": "encoder_layers",
    "heads": "encoder_attention_heads",
    "head_dim": "head_dim",
    "max_length": "max_position_embeddings",
}


def ldm_bert_from_diffusers(
    data: Mapping[str, Any], tokenizer: Path | None = None, where: str = "bert"
) -> dict[str, Any]:
    """The native config for diffusers' LDMBertConfig.

    Args:
        tokenizer: the tokenizer's folder, which defines the special tokens; None: bert-base-uncased's.

    Raises:
        SourceError: an unknown field or an unsupported value.
    """
    fields = read_fields("ldmbert", data, where)
    config = {native: fields[foreign] for native, foreign in _LDM_BERT.items()}
    if fields["encoder_ffn_dim"] != 4 * config["dim"]:
        raise refuse("encoder_ffn_dim", fields["encoder_ffn_dim"], where, f"{4 * config['dim']} (4 times d_model)")
    if config["max_length"] > LDM_ROW:
        fits = f"at most {LDM_ROW}, the ids that LDMTextToImagePipeline reads"
        raise refuse("max_position_embeddings", config["max_length"], where, fits)
    config["pad"] = fields["pad_token_id"]
    vocabulary = None if tokenizer is None else bert_vocabulary(tokenizer, config["vocab_size"])
    return config | (LdmText.special_tokens(vocabulary) if vocabulary is not None else {})


def ldm_bert_to_diffusers(config: LdmTextConfig) -> dict[str, Any]:
    """config.json of diffusers' LDMBertModel."""
    data = {foreign: getattr(config, native) for native, foreign in _LDM_BERT.items()}
    return {
        "architectures": ["LDMBertModel"],
        "model_type": "ldmbert",
        **data,
        "encoder_ffn_dim": 4 * config.dim,
        "num_hidden_layers": config.layers,
        "activation_function": "gelu",
        "pad_token_id": config.pad,
    }
