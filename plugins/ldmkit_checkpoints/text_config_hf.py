"""Configs of transformers' text models (config.json, tokenizer files) <-> native configs of text conditioners."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit_conditioners.bpe import bert_vocabulary, clip_vocabulary, sentence_pieces
from ldmkit_conditioners.clip_tower import ClipConfig
from ldmkit_conditioners.ldm_text import LdmText, LdmTextConfig
from ldmkit_conditioners.t5_text import T5TextConfig

from ldmkit.errors import SourceError

_LEGACY_EOS = 2
"""CLIP configs written before 2023 say 2, which transformers takes as "pool at the largest id"."""

_CLIP_WORDS = 49408
"""Of the published vocabulary; rows of an embedding beyond it are those of added tokens."""

_CLIP = {
    "vocab_size": ("vocab_size", 49408),
    "width": ("hidden_size", 512),
    "layers": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 8),
    "mlp": ("intermediate_size", 2048),
    "positions": ("max_position_embeddings", 77),
    "activation": ("hidden_act", "quick_gelu"),
}
_T5 = {
    "vocab_size": ("vocab_size", 32128),
    "dim": ("d_model", 512),
    "head_dim": ("d_kv", 64),
    "mlp": ("d_ff", 2048),
    "layers": ("num_layers", 6),
    "heads": ("num_heads", 8),
    "feed_forward": ("feed_forward_proj", "relu"),
    "buckets": ("relative_attention_num_buckets", 32),
    "max_distance": ("relative_attention_max_distance", 128),
}
_LDM_BERT = {
    "vocab_size": ("vocab_size", 30522),
    "dim": ("d_model", 1024),
    "layers": ("encoder_layers", 12),
    "heads": ("encoder_attention_heads", 16),
    "head_dim": ("head_dim", 64),
    "max_length": ("max_position_embeddings", 77),
}


def _translated(names: Mapping[str, tuple[str, Any]], data: Mapping[str, Any]) -> dict[str, Any]:
    return {native: data.get(foreign, default) for native, (foreign, default) in names.items()}


def _refuse(name: str, value: Any, where: str, fits: str) -> SourceError:
    return SourceError("unknown-parameter", f"{name} is {value!r}", where=f"{where}.{name}", fits=fits)


def clip_from_hf(data: Mapping[str, Any], tokenizer: Path | None = None, where: str = "text_encoder") -> dict[str, Any]:
    """Config of our tower for a CLIPTextConfig (config.json of CLIPTextModel or CLIPTextModelWithProjection).

    Args:
        tokenizer: the tokenizer's folder, which names the special tokens; None: CLIP's own.

    Raises:
        SourceError: an activation or norm epsilon that the tower does not have.
    """
    config = _translated(_CLIP, data)
    if config["activation"] not in ("quick_gelu", "gelu"):
        raise _refuse("hidden_act", config["activation"], where, "quick_gelu or gelu")
    if abs(float(data.get("layer_norm_eps", 1e-5)) - 1e-5) > 1e-9:
        raise _refuse("layer_norm_eps", data["layer_norm_eps"], where, "1e-05")
    projected = "CLIPTextModelWithProjection" in (data.get("architectures") or ())
    config["projection"] = int(data.get("projection_dim", 512)) if projected else None
    legacy = data.get("eos_token_id", 49407) == _LEGACY_EOS
    last = int(config["vocab_size"]) - 1
    config["pool"] = "argmax" if legacy else "first-eos"
    last = min(int(config["vocab_size"]), _CLIP_WORDS) - 1
    config["eos"] = last if legacy else int(data.get("eos_token_id", _CLIP_WORDS - 1))
    config["bos"] = last - 1 if legacy else int(data.get("bos_token_id", _CLIP_WORDS - 2))
    config["pad"] = config["eos"]
    words = None if tokenizer is None else clip_vocabulary(tokenizer, config["vocab_size"])
    if words is None:
        return config
    if projected and not legacy and words.end != config["eos"]:
        fits = f"{words.end}, the id of the tokenizer's end token, at which the pooled state is read"
        raise _refuse("eos_token_id", config["eos"], where, fits)
    config |= {"bos": words.start, "eos": words.end, "pad": words.pad}
    if words.longest is not None and words.longest < config["positions"]:
        config["max_length"] = words.longest
    return config


def clip_to_hf(config: ClipConfig) -> dict[str, Any]:
    """config.json for transformers and diffusers."""
    data = {foreign: getattr(config, native) for native, (foreign, _) in _CLIP.items()}
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
    """Config of T5Text for a T5Config.

    Args:
        max_length: ids in a row where the tokenizer's folder sets no limit.
        tokenizer: its folder, which names the end and the padding; None: the config's ids.

    Raises:
        SourceError: a feed-forward that it does not have.
    """
    config = _translated(_T5, data)
    if config["feed_forward"] not in ("relu", "gated-gelu"):
        raise _refuse("feed_forward_proj", config["feed_forward"], where, "relu or gated-gelu")
    end, pad = int(data.get("eos_token_id", 1)), int(data.get("pad_token_id", 0))
    words = None if tokenizer is None else sentence_pieces(tokenizer, config["vocab_size"], end)
    if words is not None:
        end, pad = words.end, pad if words.pad is None else words.pad
        max_length = words.longest or max_length
    return {**config, "max_length": max_length, "end": end, "pad": pad}


def t5_to_hf(config: T5TextConfig) -> dict[str, Any]:
    """config.json of a T5EncoderModel."""
    data = {foreign: getattr(config, native) for native, (foreign, _) in _T5.items()}
    ids = {"eos_token_id": config.end, "pad_token_id": config.pad, "decoder_start_token_id": config.pad}
    return {"architectures": ["T5EncoderModel"], "model_type": "t5", **data, **ids}


def ldm_bert_from_diffusers(
    data: Mapping[str, Any], tokenizer: Path | None = None, where: str = "bert"
) -> dict[str, Any]:
    """Config of LdmText for diffusers' LDMBertConfig.

    Args:
        tokenizer: its folder, which knows the special tokens (LDMBertConfig does not); None: bert-base-uncased's.

    Raises:
        SourceError: an activation or feed-forward width that the paper's transformer does not have.
    """
    config = _translated(_LDM_BERT, data)
    if data.get("activation_function", "gelu") != "gelu":
        raise _refuse("activation_function", data["activation_function"], where, "gelu")
    if int(data.get("encoder_ffn_dim", 4 * config["dim"])) != 4 * config["dim"]:
        raise _refuse("encoder_ffn_dim", data["encoder_ffn_dim"], where, f"{4 * config['dim']} (4 times d_model)")
    vocabulary = None if tokenizer is None else bert_vocabulary(tokenizer, config["vocab_size"])
    return config | (LdmText.special_tokens(vocabulary) if vocabulary is not None else {})


def ldm_bert_to_diffusers(config: LdmTextConfig) -> dict[str, Any]:
    """config.json of diffusers' LDMBertModel."""
    data = {foreign: getattr(config, native) for native, (foreign, _) in _LDM_BERT.items()}
    return {
        "architectures": ["LDMBertModel"],
        "model_type": "ldmbert",
        **data,
        "encoder_ffn_dim": 4 * config.dim,
        "num_hidden_layers": config.layers,
        "activation_function": "gelu",
        "pad_token_id": config.pad,
    }
