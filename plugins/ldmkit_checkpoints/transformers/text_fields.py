"""Fields of transformers' text configs: which are read, fixed or without effect. Any other field is an error.

Missing fields take the defaults of the class in transformers (in diffusers, for LDMBertConfig).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ldmkit import SourceError, suggest

CLIP = {
    "vocab_size": 49408, "hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8,
    "intermediate_size": 2048, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "projection_dim": 512,
    "bos_token_id": 49406, "eos_token_id": 49407,
}  # fmt: skip
T5 = {
    "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8,
    "feed_forward_proj": "relu", "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
    "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
LDM_BERT = {
    "vocab_size": 30522, "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 8, "head_dim": 64,
    "max_position_embeddings": 77, "encoder_ffn_dim": 5120, "activation_function": "gelu", "pad_token_id": 0,
}  # fmt: skip
"""Fields that are read -> the class's default."""

_ONLY: dict[str, dict[str, tuple[Any, ...]]] = {
    "clip": {
        "layer_norm_eps": (1e-5,), "use_attention_mask": (False, None), "model_type": ("clip_text_model",),
        "hidden_act": ("quick_gelu", "gelu"),
    },
    "t5": {
        "layer_norm_epsilon": (1e-6,), "is_decoder": (False,), "model_type": ("t5",),
        "feed_forward_proj": ("relu", "gated-gelu"), "use_attention_mask": (False, None),
    },
    "ldmbert": {"activation_function": ("gelu",), "model_type": ("ldmbert",), "scale_embedding": (False,)},
}  # fmt: skip
"""Fields supported at these values only; others would change what the model computes."""

_TRAINING = {
    *("attention_dropout", "dropout", "dropout_rate", "activation_dropout", "encoder_layerdrop", "classifier_dropout"),
    *("initializer_range", "initializer_factor", "init_std", "gradient_checkpointing", "problem_type"),
}
_OTHER_USE = {
    *("num_decoder_layers", "use_cache", "decoder_start_token_id", "tie_word_embeddings", "scale_decoder_outputs"),
    *("is_encoder_decoder", "n_positions", "output_past", "task_specific_params", "cross_attention_hidden_size"),
    *("tie_encoder_decoder", "add_cross_attention", "num_return_sequences", "no_repeat_ngram_size", "num_beams"),
    *("num_beam_groups", "diversity_penalty", "do_sample", "early_stopping", "length_penalty", "max_length"),
    *("min_length", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "bad_words_ids", "prefix"),
    *("encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id", "sep_token_id"),
    *("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "return_dict_in_generate", "output_scores"),
    *("remove_invalid_values", "finetuning_task", "id2label", "label2id", "num_labels", "tokenizer_class"),
}
_NAMES = {
    *("architectures", "_name_or_path", "transformers_version", "_diffusers_version", "_class_name", "name_or_path"),
    *("torch_dtype", "dtype", "torchscript", "use_bfloat16", "tf_legacy_loss", "return_dict", "output_attentions"),
    *("output_hidden_states", "chunk_size_feed_forward", "_attn_implementation_autoset", "attn_implementation"),
    *("_attn_implementation", "_commit_hash"),
}
NO_EFFECT = _TRAINING | _OTHER_USE | _NAMES
"""Fields without effect on hidden states: training, decoding and generation, bookkeeping."""

_IMPLIED = {"relu": ("relu", False), "gated-gelu": ("gelu_new", True)}
"""feed_forward_proj -> what transformers writes beside it as `dense_act_fn` and `is_gated_act`."""


def refuse(name: str, value: Any, where: str, fits: str) -> SourceError:
    """The error for an unsupported value."""
    return SourceError("unknown-parameter", f"{name} is {value!r}", where=f"{where}.{name}", fits=fits)


def nested(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The text part of a whole CLIP model's config (`model_type: clip`); any other config as it is.

    Raises:
        SourceError: an older `text_config_dict` contradicts it.
    """
    if data.get("model_type") != "clip" or not isinstance(data.get("text_config"), Mapping):
        return data
    inner: dict[str, Any] = dict(data["text_config"])
    for key, value in (data.get("text_config_dict") or {}).items():
        if inner.get(key, value) != value:
            fits = f"{inner[key]!r}, as in text_config"
            raise refuse(f"text_config_dict.{key}", value, where, fits)
    return inner


def read_fields(kind: str, data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields that are read from a `clip`, `t5` or `ldmbert` config, with the class's defaults where missing.

    Raises:
        SourceError: `unknown-key`; `unknown-parameter` for a value of the wrong type or an unsupported one.
    """
    defaults = {"clip": CLIP, "t5": T5, "ldmbert": LDM_BERT}[kind]
    only = dict(_ONLY[kind])
    more: Collection[str] = ("pad_token_id", "bos_token_id", "num_hidden_layers", "eos_token_id")
    if kind == "t5":
        act, gated = _IMPLIED.get(str(data.get("feed_forward_proj", "relu")), ("", False))
        only |= {"dense_act_fn": (act,), "is_gated_act": (gated,)}
        only["num_hidden_layers"] = (data.get("num_layers", defaults["num_layers"]),)
    if kind == "ldmbert":
        only["num_hidden_layers"] = (data.get("encoder_layers", defaults["encoder_layers"]),)
    known = {*defaults, *only, *NO_EFFECT, *more}
    for key, value in data.items():
        if key not in known:
            raise SourceError("unknown-key", f"unknown key {key!r}", where=f"{where}.{key}", fits=suggest(key, known))
        if key in only and not any(_same(value, fit) for fit in only[key]):
            why = ", as feed_forward_proj says" if key in ("dense_act_fn", "is_gated_act") else ""
            raise refuse(key, value, where, " or ".join(map(str, only[key])) + why)
    found = {key: data.get(key, default) for key, default in defaults.items()}
    for key, value in found.items():
        if type(value) is not type(defaults[key]) or (isinstance(value, int) and value < 0):
            raise refuse(key, value, where, "a number of 0 or more" if isinstance(defaults[key], int) else "a name")
    return found


def _same(value: Any, fit: Any) -> bool:
    if isinstance(fit, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        return abs(value - fit) <= 1e-4 * fit  # a float32 written as text
    return bool(value == fit and isinstance(value, bool) == isinstance(fit, bool))
