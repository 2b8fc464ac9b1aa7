"""Configs of transformers' CLIP and T5 text encoders (config.json, tokenizer files), read and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit_conditioners.bpe import clip_vocabulary, sentence_pieces
from ldmkit_conditioners.clip_tower import ClipConfig
from ldmkit_conditioners.t5_text import T5TextConfig

from ldmkit_checkpoints.transformers.text_fields import nested, read_fields, refuse

_LEGACY_EOS = 2
"""eos_token_id in CLIP configs from before 2023, which transformers reads as "pool at the largest id"."""

_CLIP_WORDS = 49408
"""Size of the published vocabulary; embedding rows beyond it belong to added tokens."""

_CLIP = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp": "intermediate_size",
    "positions": "max_position_embeddings",
    "activation": "hidden_act",
}

_T5 = {
    "vocab_size": "vocab_size",
    "dim": "d_model",
    "head_dim": "d_kv",
    "mlp": "d_ff",
    "layers": "num_layers",
    "heads": "num_heads",
    "feed_forward": "feed_forward_proj",
    "buckets": "relative_attention_num_buckets",
    "max_distance": "relative_attention_max_distance",
}


def clip_from_hf(
    data: Mapping[str, Any], tokenizer: Path | None = None, where: str = "text_encoder", projected: bool | None = None
) -> dict[str, Any]:
    """The native config for a CLIPTextConfig (config.json of CLIPTextModel or CLIPTextModelWithProjection).

    Args:
        tokenizer: the tokenizer's folder, which defines the special tokens; None: CLIP's own.
        projected: whether the model has a projection; None: as `architectures` in the config says.

    Raises:
        SourceError: an unknown field or an unsupported value.
    """
    data = nested(data, where)
    fields = read_fields("clip", data, where)
    config = {native: fields[foreign] for native, foreign in _CLIP.items()}
    if projected is None:
        projected = "CLIPTextModelWithProjection" in (data.get("architectures") or ())
    config["projection"] = fields["projection_dim"] if projected else None
    legacy = fields["eos_token_id"] == _LEGACY_EOS
    config["pool"] = "argmax" if legacy else "first-eos"
    last = min(config["vocab_size"], _CLIP_WORDS) - 1
    config["eos"] = last if legacy else fields["eos_token_id"]
    config["bos"] = last - 1 if legacy else fields["bos_token_id"]
    config["pad"] = config["eos"]
    words = None if tokenizer is None else clip_vocabulary(tokenizer, config["vocab_size"])
    if words is None:
        return config
    if projected and not legacy and words.end != config["eos"]:
        fits = f"{words.end}, the id of the tokenizer's end token, at which the pooled state is read"
        raise refuse("eos_token_id", config["eos"], where, fits)
    config |= {"bos": words.start, "eos": words.end, "pad": words.pad}
    if words.longest is not None and words.longest < config["positions"]:
        config["max_length"] = words.longest
    return config


def clip_to_hf(config: ClipConfig) -> dict[str, Any]:
    """config.json of a CLIPTextModel or CLIPTextModelWithProjection."""
    data = {foreign: getattr(config, native) for native, foreign in _CLIP.items()}
    projected = config.projection is not None
    return {
        "architectures": ["CLIPTextModelWithProjection" if projected else "CLIPTextModel"],
        "model_type": "clip_text_model",
        **data,
        "projection_dim": config.projection if projected else config.width,
        "layer_norm_eps": 1e-5,
        "attention_dropout": 0.0,
        "bos_token_id": config.bos,
        "eos_token_id": _LEGACY_EOS if config.pool == "argmax" else config.eos,
        "pad_token_id": config.pad,
    }


def t5_from_hf(
    data: Mapping[str, Any], max_length: int = 77, where: str = "text_encoder", tokenizer: Path | None = None
) -> dict[str, Any]:
    """The native config for a T5Config.

    Args:
        max_length: sequence length if the tokenizer sets no limit.
        tokenizer: the tokenizer's folder, which defines the end and padding tokens; None: the config's ids.

    Raises:
        SourceError: an unknown field or an unsupported value.
    """
    fields = read_fields("t5", data, where)
    config = {native: fields[foreign] for native, foreign in _T5.items()}
    end, pad = fields["eos_token_id"], fields["pad_token_id"]
    words = None if tokenizer is None else sentence_pieces(tokenizer, config["vocab_size"], end)
    if words is not None:
        end, pad = words.end, pad if words.pad is None else words.pad
        max_length = words.longest or max_length
    return {**config, "max_length": max_length, "end": end, "pad": pad}


def t5_to_hf(config: T5TextConfig) -> dict[str, Any]:
    """config.json of a T5EncoderModel."""
    data = {foreign: getattr(config, native) for native, foreign in _T5.items()}
    ids = {"eos_token_id": config.end, "pad_token_id": config.pad, "decoder_start_token_id": config.pad}
    return {"architectures": ["T5EncoderModel"], "model_type": "t5", **data, **ids}
