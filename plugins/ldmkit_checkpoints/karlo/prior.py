"""Keys of Karlo's prior, `prior-ckpt-*.ckpt`, and of the statistics beside it, `ViT-L-14_stats.th`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ldmkit_codecs.embedding import check_statistics
from ldmkit_denoisers.prior import PriorConfig
from torch import Tensor

from ldmkit import LazyTensor, WeightsError
from ldmkit_checkpoints.keys import Conversion, KeyMap, layer, layers
from ldmkit_checkpoints.torchfile.state_dict import open_pickled
from ldmkit_checkpoints.unet_keys import two_layers

HEAD_DIM = 64
"""Of every head, in Karlo's only config."""
_MARK = "model.clip_img_proj.weight"


def is_karlo_prior(tensors: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is Karlo's prior."""
    return _MARK in tensors and "model.prd_emb" in tensors


def karlo_prior_config(tensors: Mapping[str, LazyTensor], head_dim: int = HEAD_DIM) -> PriorConfig:
    """The config of a prior, from the shapes of its tensors."""
    width, channels = tensors[_MARK].shape
    layers = {key.split(".")[3] for key in tensors if key.startswith("model.transformer.resblocks.")}
    return PriorConfig(
        channels=channels,
        width=width,
        layers=len(layers),
        heads=width // head_dim,
        context_dim=tensors["model.text_enc_proj.weight"].shape[1],
        length=tensors["model.positional_embedding"].shape[1] - 4,
        vector_dim=tensors["model.text_emb_proj.weight"].shape[1],
    )


def karlo_prior_keys(config: PriorConfig) -> KeyMap:
    """Keys of the network. Rows of `c_qkv` are (head, q | k | v, head dim)."""
    keymap = two_layers("time", "model.time_embed.0", "model.time_embed.2")
    keymap |= layers({"enter": "model.clip_img_proj", "context": "model.text_enc_proj"})
    keymap |= layers({"vector": "model.text_emb_proj", "norm": "model.final_ln", "leave": "model.out_proj"})
    keymap["query"] = Conversion(("model.prd_emb",), lambda w: w.flatten(), lambda w: (w[None, None],))
    keymap["positions"] = Conversion(("model.positional_embedding",), lambda w: w.flatten(0, 1), lambda w: (w[None],))
    for i in range(config.layers):
        native, foreign = f"blocks.{i}", f"model.transformer.resblocks.{i}"
        keymap |= layers({f"{native}.norm_1": f"{foreign}.ln_1", f"{native}.norm_2": f"{foreign}.ln_2"})
        keymap |= layers({f"{native}.inner": f"{foreign}.mlp.c_fc", f"{native}.outer": f"{foreign}.mlp.c_proj"})
        keymap |= layer(f"{native}.out", f"{foreign}.attn.c_proj")
        for part in ("weight", "bias"):
            keymap[f"{native}.qkv.{part}"] = _by_head(f"{foreign}.attn.c_qkv.{part}", config.heads)
    return keymap


def read_statistics(path: Path) -> dict[str, Tensor]:
    """The mean and deviation (dim,) of embeddings, from a file with both in a tuple.

    Raises:
        SourceError: as `open_pickled`.
        WeightsError: `no-statistics`: another content, or deviations that are not above 0.
    """
    found = open_pickled(path)
    good = isinstance(found, (list, tuple)) and len(found) == 2 and all(isinstance(one, LazyTensor) for one in found)
    if not good or len({one.shape for one in found}) != 1:
        what = f"the file holds a {type(found).__name__}, not the mean and deviation of embeddings"
        raise WeightsError("no-statistics", what, where=str(path), fits="a tuple of two vectors of one length")
    mean, std = (one.read(True).to(torch.float32).flatten() for one in found)
    check_statistics(mean, std, str(path))
    return {"mean": mean, "std": std}


def _by_head(key: str, heads: int) -> Conversion:
    """(heads x 3 x D, ...) -> (3 x heads x D, ...)."""
    return Conversion(
        (key,),
        lambda w: w.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2),
        lambda w: (w.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2),),
    )
