"""diffusers' UnCLIPTextProjModel, which stands between Karlo's embeddings and its decoder: here a part of the U-Net,
but for its learned null, which is the picture's conditioner's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit_denoisers.config import UNetConfig
from torch import Tensor

from ldmkit import SourceError, shown, suggest
from ldmkit_checkpoints.keys import Conversion, KeyMap, layers, renamed

TEXT_PROJ = "UnCLIPTextProjModel"
_FIELDS = {"clip_extra_context_tokens": 4, "clip_embeddings_dim": 768, "time_embed_dim": None}
_FIELDS |= {"cross_attention_dim": None}

NULL = {"empty": renamed("learned_classifier_free_guidance_embeddings")}
"""Key of what stands for a picture's embedding that is dropped."""


def with_text_proj(unet: UNetConfig, config: Mapping[str, Any], where: str) -> UNetConfig:
    """The decoder's config, reading what the projection's config.json says.

    Raises:
        SourceError: `unknown-key`; `unsupported`: a value of another type, or widths that are not the decoder's.
    """
    for key in config:
        if not key.startswith("_") and key not in _FIELDS:
            raise SourceError("unknown-key", f"unknown key {key!r}", where=f"{where}.{key}", fits=suggest(key, _FIELDS))
    options = {key: config.get(key, default) for key, default in _FIELDS.items()}
    for key, value in options.items():
        if type(value) is not int or value < 1:
            raise _refuse(key, value, where, "a positive integer")
    for key, only in (("time_embed_dim", unet.embedding), ("cross_attention_dim", unet.context_dim)):
        if options[key] != only:
            raise _refuse(key, options[key], where, f"{only}, as in the decoder's config")
    dim = options["clip_embeddings_dim"]
    changes = {
        "vector": "linear",
        "vector_dim": dim,
        "context_source": dim,
        "context_norm": True,
        "image_dim": dim,
        "image_tokens": options["clip_extra_context_tokens"],
        "image_time": True,
        "image_norm": False,
    }
    return UNetConfig.of({**unet.model_dump(), **changes}, where)


def text_proj_keys(config: UNetConfig) -> KeyMap:
    """Keys of the projection's layers in the decoder."""
    keymap = layers(
        {
            "vector_embed": "embedding_proj",
            "image_time.proj": "clip_image_embeddings_project_to_time_embeddings",
            "context_proj": "encoder_hidden_states_proj",
            "context_norm": "text_encoder_hidden_states_norm",
        }
    )
    for part in ("weight", "bias"):
        keymap[f"image_tokens.proj.{part}"] = _by_token(
            f"clip_extra_context_tokens_proj.{part}", config.image_tokens or 0
        )
    return keymap


def _by_token(key: str, tokens: int) -> Conversion:
    """Rows (width, tokens) as published -> (tokens, width)."""

    def read(rows: Tensor) -> Tensor:
        return rows.unflatten(0, (-1, tokens)).transpose(0, 1).flatten(0, 1)

    def write(rows: Tensor) -> tuple[Tensor]:
        return (rows.unflatten(0, (tokens, -1)).transpose(0, 1).flatten(0, 1),)

    return Conversion((key,), read, write)


def _refuse(key: str, value: Any, where: str, fits: str) -> SourceError:
    return SourceError("unsupported", f"{key} = {shown(value)} is not supported", where=f"{where}.{key}", fits=fits)
