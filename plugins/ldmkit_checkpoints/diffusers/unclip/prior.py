"""diffusers' PriorTransformer: config.json and keys, of the network and of the embeddings' statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit_denoisers.prior import PriorConfig

from ldmkit import LazyTensor, SourceError, shown, suggest
from ldmkit_checkpoints.config_fields import checked
from ldmkit_checkpoints.keys import Conversion, KeyMap, layer, layers, stacked
from ldmkit_checkpoints.unet_keys import two_layers

PRIOR = "PriorTransformer"

_SIZES = {
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "num_layers": 20,
    "embedding_dim": 768,
    "num_embeddings": 77,
}
_ONLY: dict[str, tuple[Any, ...]] = {
    "additional_embeddings": (4,),
    "time_embed_act_fn": ("silu", "swish"),
    "norm_in_type": (None,),
    "embedding_proj_norm_type": (None,),
    "encoder_hid_proj_type": ("linear",),
    "added_emb_type": ("prd",),
}
"""Fields supported at these values only: the others are those of Shap-E, whose prior is of another kind."""
_WIDTHS = ("time_embed_dim", "embedding_proj_dim", "clip_embed_dim")
"""Widths that follow from others where they are null."""
_FREE = ("dropout",)
"""Without effect on a trained network."""

NAMES = {
    "layers": "num_layers",
    "heads": "num_attention_heads",
    "channels": "embedding_dim",
    "length": "num_embeddings",
}
STATISTICS = ("clip_mean", "clip_std")


def prior_from_diffusers(config: Mapping[str, Any], where: str = "prior/config.json") -> dict[str, Any]:
    """The native config for a PriorTransformer's config.json.

    Raises:
        SourceError: `unknown-key`; `unsupported`.
    """
    known = {*_SIZES, *_ONLY, *_WIDTHS, *_FREE}
    for key, value in config.items():
        if key.startswith("_"):
            continue
        if key not in known:
            raise SourceError("unknown-key", f"unknown key {key!r}", where=f"{where}.{key}", fits=suggest(key, known))
        if key in _ONLY and value not in _ONLY[key]:
            raise _refuse(key, value, where, " or ".join(repr(one) for one in _ONLY[key]))
    sizes = {key: config.get(key, default) for key, default in _SIZES.items()}
    for key, value in sizes.items():
        if type(value) is not int or value < 1:
            raise _refuse(key, value, where, "a positive integer")
    width, dim = sizes["num_attention_heads"] * sizes["attention_head_dim"], sizes["embedding_dim"]
    for key, only in (("time_embed_dim", width), ("clip_embed_dim", dim)):
        if config.get(key) not in (None, 0, only):
            raise _refuse(key, config[key], where, f"{only}, or null")
    vector = config.get("embedding_proj_dim") or dim
    if type(vector) is not int or vector < 1:
        raise _refuse("embedding_proj_dim", vector, where, "a positive integer, or null")
    native = {
        "channels": dim,
        "width": width,
        "layers": sizes["num_layers"],
        "heads": sizes["num_attention_heads"],
        "context_dim": dim,
        "length": sizes["num_embeddings"],
        "vector_dim": vector,
    }
    return checked(PriorConfig, native, where, NAMES)


def prior_diffusers_keys(config: PriorConfig) -> KeyMap:
    """Keys of a PriorTransformer's network."""
    keymap = two_layers("time", "time_embedding.linear_1", "time_embedding.linear_2")
    keymap |= layers({"enter": "proj_in", "context": "encoder_hidden_states_proj", "vector": "embedding_proj"})
    keymap |= layers({"norm": "norm_out", "leave": "proj_to_clip_embeddings"})
    keymap["query"] = _within("prd_embedding", 2)
    keymap["positions"] = _within("positional_embedding", 1)
    for i in range(config.layers):
        native, foreign = f"blocks.{i}", f"transformer_blocks.{i}"
        keymap |= layer(f"{native}.norm_1", f"{foreign}.norm1") | layer(f"{native}.norm_2", f"{foreign}.norm3")
        keymap |= layer(f"{native}.out", f"{foreign}.attn1.to_out.0")
        keymap |= layers({f"{native}.inner": f"{foreign}.ff.net.0.proj", f"{native}.outer": f"{foreign}.ff.net.2"})
        for part in ("weight", "bias"):
            keymap[f"{native}.qkv.{part}"] = stacked([f"{foreign}.attn1.to_{name}.{part}" for name in "qkv"])
    return keymap


def statistics_keys() -> KeyMap:
    """Keys of the codec's statistics, which are parameters of the same file."""
    return {"mean": _within("clip_mean", 1), "std": _within("clip_std", 1)}


def check_lazy_statistics(tensors: Mapping[str, LazyTensor], where: str) -> None:
    """Read the statistics of embeddings under their native keys, and refuse zeros before anything runs.

    Raises:
        WeightsError: `no-statistics`.
    """
    from ldmkit_codecs.embedding import check_statistics

    check_statistics(tensors["mean"].read(True), tensors["std"].read(True), where)


def _within(key: str, axes: int) -> Conversion:
    """A tensor published with leading axes of length 1."""
    return Conversion((key,), lambda w: w.reshape(w.shape[axes:]), lambda w: (w[(None,) * axes],))


def _refuse(key: str, value: Any, where: str, fits: str) -> SourceError:
    return SourceError("unsupported", f"{key} = {shown(value)} is not supported", where=f"{where}.{key}", fits=fits)
