"""What a file is that is no whole model: told from its keys, one row a kind, first match wins."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ldmkit.errors import SourceError

_ADAPTER = (
    "the whole model that it was made for, fused with it by the program that reads it: ldmkit does not load it yet"
)
_FAMILY = "the program of that family; ldmkit does not load it yet"


class Kind(NamedTuple):
    """A kind of file: a pattern that one of its keys matches, its name, and what would load it."""

    pattern: str
    name: str
    fits: str
    code: str = "unsupported"


KINDS = (
    Kind(
        r"\.lora_mid\.|\.(hada_w1_[ab]|lokr_w[12](_[ab])?|oft_(blocks|diag)|on_input|dora_scale)$",
        "a LyCORIS adapter",
        _ADAPTER,
    ),
    Kind(r"^lora_(unet|te\d?|transformer)_|\.lora_(down|up)\.weight$", "a LoRA with kohya's keys", _ADAPTER),
    Kind(
        r"\.lora_[AB]\.(\w+\.)?weight$|\.lora\.(down|up)\.weight$|\.lora_magnitude_vector",
        "a LoRA with peft's keys",
        _ADAPTER,
    ),
    Kind(
        r"^(emb_params|string_to_param\.|string_to_token|clip_[lg]$|<[^>]+>$)",
        "a textual inversion embedding",
        "the whole model, saved by diffusers as a folder after load_textual_inversion",
    ),
    Kind(r"^(ip_adapter\.|image_proj\.|image_proj$|ip_adapter$)|\.to_[kv]_ip\.weight$", "an IP-Adapter", _ADAPTER),
    Kind(r"^(adapter\.)?body\.\d+\.(block1|resnets)", "a T2I-Adapter", _ADAPTER),
    Kind(r"(^|\.)fuser\.(alpha_attn|linear)|^position_net\.", "a GLIGEN model", _FAMILY),
    Kind(r"^\d+\.\d+\.linear\.\d+\.weight$|^\d{3,4}$", "a hypernetwork", _ADAPTER),
    Kind(r"^(ctrl_to_base|base_to_ctrl|control_to_base|down_zero_convs_)", "a ControlNet-XS", _FAMILY),
    Kind(r"^(control_add_embedding|task_embedding|transformer_layes)", "a ControlNet union", _FAMILY),
    Kind(r"lora_controlnet", "a ControlNet-LoRA", _FAMILY),
    Kind(r"(^|\.)double_blocks\.\d+\.(img|txt)_attn", "a FLUX transformer", _FAMILY),
    Kind(r"(^|\.)single_transformer_blocks\.\d+\.", "a FLUX transformer with diffusers' keys", _FAMILY),
    Kind(
        r"(^|\.)joint_blocks\.\d+\.|^transformer_blocks\.\d+\.attn\.add_q_proj",
        "a Stable Diffusion 3 transformer",
        _FAMILY,
    ),
    Kind(
        r"^(pos_embed\.proj|adaln_single\.|caption_projection\.|t_block\.1|y_embedder\.y_proj)",
        "a PixArt transformer",
        _FAMILY,
    ),
    Kind(r"^(effnet_mapper|clip_txt_pooled_mapper|clip_mapper)", "a Stable Cascade stage", _FAMILY),
    Kind(
        r"^(taesd_)?(encoder|decoder)\.(layers\.)?\d+\.|^\d+\.(conv\.\d+\.)?weight$",
        "a tiny autoencoder (TAESD), or half of one",
        "ldmkit.load_codec with the folder that holds its encoder and decoder, or diffusers' AutoencoderTiny folder",
    ),
    Kind(
        r"^(controlnet_cond_embedding|controlnet_down_blocks)\.",
        "a ControlNet with diffusers' keys",
        "ldmkit.load_adapter with its folder, config.json included",
        "adapter-only",
    ),
    Kind(r"^(first_stage_model|vae)\.", "a first stage with a model's prefix", "the file of the whole model"),
    Kind(
        r"^encoder\.down_blocks\.\d+\.",
        "a first stage with diffusers' keys",
        "ldmkit.load_codec with its folder, config.json included",
        "codec-only",
    ),
    Kind(
        r"^(input_blocks\.0\.0|down_blocks\.0)\.",
        "a U-Net alone",
        "the whole model: with its first stage and text encoder",
        "denoiser-only",
    ),
    Kind(
        r"^(text_model\.|embeddings\.token_embedding|transformer\.text_model\.|token_embedding\.weight|encoder\.block\.0\.layer\.)",
        "a text encoder alone",
        "the whole model",
    ),
    Kind(r"^(vision_model|visual)\.", "a picture encoder of CLIP", "the whole model"),
)
"""Adapters before the networks whose keys they repeat."""


_BEGINNINGS = (
    (b"version https://git-lfs", "a pointer of git-lfs in place of the file", "the file itself: git lfs pull"),
    (b"<!doctype html", "a web page", "the file itself: what was downloaded is the page about it"),
    (b"<html", "a web page", "the file itself: what was downloaded is the page about it"),
    (b"gguf", "a GGUF file", "the program that wrote it; ldmkit does not load it yet"),
)


def refuse_other_bytes(path: Path) -> None:
    """Say what a file is that is neither safetensors nor torch's, by its first bytes.

    Raises:
        SourceError: `unsupported`.
    """
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    for beginning, name, fits in _BEGINNINGS:
        if start.startswith(beginning):
            raise SourceError("unsupported", f"it is {name}", where=str(path), fits=fits)


def kind_of(keys: Iterable[str]) -> Kind | None:
    """The first kind that any of the keys shows; None for what may be a whole model or a first stage."""
    names = list(keys)
    for kind in KINDS:
        pattern = re.compile(kind.pattern)
        if any(pattern.search(key) for key in names):
            return kind
    return None


def refuse_other_kinds(keys: Iterable[str], where: str) -> None:
    """Say what the file is, if it is no whole model.

    Raises:
        SourceError: `unsupported`, `denoiser-only`, `codec-only`, `adapter-only`.
    """
    names = list(keys)
    unet = "model.diffusion_model."
    if any(key.startswith(unet + "input_blocks.") for key in names):
        missing = {"first stage": ("first_stage_model.", "vae.")}
        if any(".attn2.to_k." in key for key in names):  # without cross-attention there may have been none
            missing["text encoder"] = ("cond_stage_model.", "conditioner.")
        absent = [name for name, heads in missing.items() if not any(key.startswith(heads) for key in names)]
        if absent:
            alone = "a U-Net alone" if len(absent) == len(missing) else f"a model without its {absent[0]}"
            fits = "the whole model; or config= with the original yaml, if that names no such part"
            raise SourceError("denoiser-only", f"it is {alone}", where=where, fits=fits)
        return
    if (kind := kind_of(names)) is not None:
        raise SourceError(kind.code, f"it is {kind.name}", where=where, fits=kind.fits)
