"""peft's config of an adapter: each field is used, means nothing for the tensors, or is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit import SourceError, read_json

CONFIG = "adapter_config.json"
_KINDS = ("LORA", "LOHA", "LOKR")

_USED = ("r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "auto_mapping")
_CHECKED = ("peft_type", "bias", "init_lora_weights")

_CHANGING = (
    "lora_bias", "layer_replication", "megatron_config", "trainable_token_indices", "modules_to_save",
    "target_parameters", "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "velora_config",
    "monteclora_config", "kasa_config", "enable_lora",
)  # fmt: skip
"""Fields that change what the tensors do."""

_OF_TRAINING = (
    "task_type", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "target_modules",
    "exclude_modules", "lora_dropout", "fan_in_fan_out", "layers_to_transform", "layers_pattern", "megatron_core",
    "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "runtime_config",
    "ensure_weight_tying", "merge_weights", "rank_dropout", "module_dropout", "use_effective_conv2d",
    "decompose_both", "decompose_factor", "rank_dropout_scale", "init_weights",
)  # fmt: skip
"""Fields that say where and how it was trained: the keys and shapes of the tensors say what came of it. (peft itself
sets `fan_in_fan_out` to false for the layers of these networks; what `loftq_config` and its like do to the base,
`init_lora_weights` says.)"""

_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Starts of a LoRA that leave the base as it is; PiSSA, OLoRA, CorDA, LoftQ and others change it."""

_MEANS_NOTHING = (None, False, "none", [], {})

NETWORKS = {"UNet2DConditionModel": "denoiser", "CLIPTextModel": "text-1", "CLIPTextModelWithProjection": "text-2"}
"""The class that peft wrapped -> network."""


def read_peft_config(path: Path) -> dict[str, Any]:
    """The fields of adapter_config.json.

    Raises:
        SourceError: `unsupported`: an update of another kind, or a setting that changes what it does.
    """
    config = read_json(path)
    if not isinstance(config, dict) or config.get("peft_type") not in _KINDS:
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise SourceError("unsupported", f"peft_type is {kind!r}", where=str(path), fits=", ".join(_KINDS))
    check_peft(config, str(path))
    return config


def check_peft(config: Mapping[str, Any], where: str) -> None:
    """Refuse fields that change what the tensors do, and those that are not known.

    Raises:
        SourceError: `unsupported`; `unknown-key`.
    """
    if config.get("bias", "none") not in (None, "none"):
        what = f"bias is {config['bias']!r}: biases were trained too"
        raise SourceError("unsupported", what, where=where, fits='bias "none"')
    for field in _CHANGING:
        if config.get(field) not in _MEANS_NOTHING:
            what = f"{field} is {config[field]!r}, which ldmkit does not build"
            raise SourceError("unsupported", what, where=where, fits=f"an adapter without {field}")
    started = config.get("init_lora_weights", True)
    if started not in _PLAIN_STARTS:
        what = f"init_lora_weights is {started!r}: the base's own weights were changed before training"
        fits = "peft's save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        raise SourceError("unsupported", what, where=where, fits=fits)
    known = {*_USED, *_CHECKED, *_CHANGING, *_OF_TRAINING}
    for field, value in config.items():
        if field not in known and value not in _MEANS_NOTHING:
            what = f"the field {field!r} of peft's config is {value!r}, and it is not known what it does"
            raise SourceError("unknown-key", what, where=where, fits=f"an adapter without it; known: {sorted(known)}")


def wrapped_network(config: Mapping[str, Any], where: str) -> str | None:
    """The network that peft wrapped, as `auto_mapping` says; None: it does not.

    Raises:
        SourceError: `other-base`: one that no pipeline changes.
    """
    mapping = config.get("auto_mapping")
    cls = mapping.get("base_model_class") if isinstance(mapping, Mapping) else None
    library = mapping.get("parent_library") if isinstance(mapping, Mapping) else None
    if not isinstance(cls, str) or not str(library).startswith(("diffusers.", "transformers.")):
        return None
    if cls not in NETWORKS:
        what = f"it was trained on a {cls} ({CONFIG}: auto_mapping.base_model_class)"
        raise SourceError("other-base", what, where=where, fits=f"an adapter of a {', '.join(NETWORKS)}")
    return NETWORKS[cls]
