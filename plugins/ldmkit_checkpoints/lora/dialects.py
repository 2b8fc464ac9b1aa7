"""How a key of a file names a layer and one of the tensors that change it, a table a dialect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Named(NamedTuple):
    """What a key names.

    Args:
        tower: "denoiser", "text-1", "text-2", "conditioners" of those without a published layout, or "any" where the
            file does not say.
        path: of the layer in a published layout; `flat` ones have `_` where there was a dot.
        role: name of the tensor in the update, or "alpha".
    """

    tower: str
    path: str
    flat: bool
    role: str


_PLAIN: Mapping[str, str] = {
    # kohya's scripts
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".alpha": "alpha",
    ".dora_scale": "magnitude",
    ".diff": "diff",
    ".diff_b": "bias",
    # LyCORIS
    ".hada_w1_a": "a1",
    ".hada_w1_b": "b1",
    ".hada_w2_a": "a2",
    ".hada_w2_b": "b2",
    ".hada_t1": "t1",
    ".hada_t2": "t2",
    ".lokr_w1": "w1",
    ".lokr_w1_a": "w1_a",
    ".lokr_w1_b": "w1_b",
    ".lokr_w2": "w2",
    ".lokr_w2_a": "w2_a",
    ".lokr_w2_b": "w2_b",
    ".lokr_t2": "w2_t",
    # diffusers before it wrote peft's names
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
}
"""What stands behind the layer's path, and the tensor that it names."""

_LONGEST_FIRST = sorted(_PLAIN, key=len, reverse=True)

_PEFT = (
    (re.compile(r"\.lora_A(\.\w+)?\.weight$"), "down"),
    (re.compile(r"\.lora_B(\.\w+)?\.weight$"), "up"),
    (re.compile(r"\.lora_magnitude_vector(\.\w+)?(\.weight)?$"), "magnitude"),
)
"""The same of peft; between them may be the adapter's name."""

_PROCESSOR = re.compile(r"(\.processor)?\.(?P<layer>to_q|to_k|to_v|to_out)_lora\.(?P<way>down|up)\.weight$")
"""diffusers' attention processors, which are beside the layers that they change."""

_CLIP_LAYERS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}

UNSUPPORTED: tuple[tuple[str, str], ...] = (
    (r"\.oft_(blocks|diag|r)", "an orthogonal update (OFT)"),
    (r"\.boft_", "an orthogonal update (BOFT)"),
    (r"\.(w|b)_norm$", "the change of a norm"),
    (r"\.(a1|a2|b1|b2)\.weight$", "a GLoRA"),
    (r"\.on_input$|\.ia3_l", "an IA3"),
    (r"\.lora_embedding_[AB]", "the change of an embedding table"),
    (r"\.lora_B(\.\w+)?\.bias$", "a low-rank update with a bias of its own"),
    (r"\.scalar$", "a LyCORIS update with a factor of its own (use_scalar)"),
    (r"\.(vera_lambda_|fourier_spectrum|hra_u|randlora_|lora_ga_)", "an update of a newer kind of peft's"),
    (r"\.(reshape_weight|set_weight)$", "a change of a layer's shape (FLUX control)"),
)
"""Patterns of keys whose meaning is known and not built, with their names."""

IGNORED: tuple[tuple[str, str], ...] = ((r"^bundle_emb\.", "an embedding for a word, which is no change of a weight"),)
"""Patterns of keys that may be left out, with the reason."""

_FLAT: tuple[tuple[str, str], ...] = (
    ("lora_unet_", "denoiser"),
    ("lora_te_", "text-1"),
    ("lora_te1_", "text-1"),
    ("lora_te2_", "text-2"),
    ("lora_conditioners_", "conditioners"),
    ("lycoris_", "any"),
)
_DOTTED: tuple[tuple[str, str], ...] = (
    ("unet.", "denoiser"),
    ("text_encoder.", "text-1"),
    ("text_encoder_2.", "text-2"),
    ("model.diffusion_model.", "denoiser"),
    ("diffusion_model.", "denoiser"),
    ("text_encoders.clip_l.transformer.", "text-1"),
    ("text_encoders.clip_g.transformer.", "text-2"),
    ("conditioners.", "conditioners"),
    ("base_model.model.", "any"),
)
"""Beginnings of keys, and the network that the rest is a layer of."""

OTHERS: tuple[tuple[str, str], ...] = (
    (r"^(lora_te3_|text_encoder_3\.|text_encoders\.t5xxl)", "a T5 text encoder"),
    (r"^(transformer\.|lora_transformer_)", "a diffusion transformer (FLUX, Stable Diffusion 3 or another)"),
    (r"^(lora_unet_)?(double|single)_blocks[._]\d", "FLUX"),
    (r"^(lora_prior_unet_|prior\.)", "Stable Cascade"),
)
"""Beginnings of keys for networks that no pipeline here has, with their names."""


def is_update(keys: list[str]) -> bool:
    """Whether keys are those of a file of changes to weights: most of them, so that others in it are named as such."""
    ours = sum(_role(key) is not None or _listed(key, (*UNSUPPORTED, *IGNORED)) is not None for key in keys)
    return ours > 0 and 2 * ours >= len(keys)


def named(key: str) -> Named | None:
    """What a key names; None: nothing that is known here."""
    found = _role(key)
    if found is None:
        return None
    path, role = found
    for beginnings, flat in ((_FLAT, True), (_DOTTED, False)):
        for start, tower in beginnings:
            if path.startswith(start):
                return Named(tower, path.removeprefix(start), flat, role)
    return Named("any", path, False, role)


def named_by_peft(key: str) -> bool:
    """Whether a key ends as peft's do."""
    return any(pattern.search(key) for pattern, _ in _PEFT)


def unsupported(key: str) -> str | None:
    """The name of what a key belongs to, where that is known and not built."""
    return _listed(key, UNSUPPORTED)


def other_network(key: str) -> str | None:
    """The name of the network that a key belongs to, where no pipeline here has it."""
    return _listed(key, OTHERS)


def ignored(key: str) -> str | None:
    """Why a key may be left out."""
    return _listed(key, IGNORED)


def _role(key: str) -> tuple[str, str] | None:
    """The path before, and the role."""
    for end in _LONGEST_FIRST:
        if key.endswith(end):
            return key.removesuffix(end), _PLAIN[end]
    for pattern, role in _PEFT:
        if (match := pattern.search(key)) is not None:
            return key[: match.start()], role
    if (match := _PROCESSOR.search(key)) is not None:
        base, layer = key[: match.start()], match["layer"]
        if base.endswith("self_attn"):  # of a text encoder
            return f"{base}.{_CLIP_LAYERS[layer]}", match["way"]
        return f"{base}.{layer}{'.0' if layer == 'to_out' else ''}", match["way"]
    return None


def _listed(key: str, patterns: tuple[tuple[str, str], ...]) -> str | None:
    return next((name for pattern, name in patterns if re.search(pattern, key)), None)
