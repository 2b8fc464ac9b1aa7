"""Which files and folders hold changes to weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ldmkit import LazyTensor, Source, SourceError, read_json
from ldmkit.models.composed import Composed
from ldmkit.models.weights import open_safetensors
from ldmkit_checkpoints.lora.bases import compare
from ldmkit_checkpoints.lora.dialects import is_update
from ldmkit_checkpoints.lora.few_steps import asked_by
from ldmkit_checkpoints.lora.layers import names_in
from ldmkit_checkpoints.lora.said import Said, said_of
from ldmkit_checkpoints.lora.scales import Scales
from ldmkit_checkpoints.lora.source import LoraSource
from ldmkit_checkpoints.torchfile.state_dict import open_state_dict
from ldmkit_checkpoints.unsupported.files import refuse_unsupported_file

CONFIG = "adapter_config.json"
_IN_FOLDERS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors", "adapter_model.bin")
_KINDS = ("LORA", "LOHA", "LOKR")
_CHANGING = (
    "lora_bias", "layer_replication", "megatron_config", "trainable_token_indices", "modules_to_save",
    "target_parameters", "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config",
)  # fmt: skip
"""Fields of peft's config that change what the tensors do."""

_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Starts of a LoRA that leave the base as it is; PiSSA, OLoRA, CorDA, LoftQ and others change it."""

_MEANS_NOTHING = (None, False, "none", [], {})


class Found(NamedTuple):
    """A file of changes, the folder that was named in its place, and peft's config there."""

    path: Path
    folder: Path | None
    config: dict[str, Any] | None
    tensors: Mapping[str, LazyTensor]

    @property
    def said(self) -> Said:
        """What is said of it."""
        return said_of(self.path, self.folder, self.config)


def open_update(path: Path, pipeline: Composed) -> Source | None:
    """The reader for a LoRA's file or folder; None where it is none.

    Raises:
        SourceError: it is one, and does not fit the pipeline or cannot be read.
    """
    found = find_update(path)
    if found is None:
        return None
    where, said = str(found.path), found.said
    remarks = [*said.unread, *compare(said, pipeline, where)]
    scales = Scales.of_metadata(said.metadata, where)
    if found.config is not None:
        scales = Scales({"any": found.config}, where)
    for config in scales.configs:
        _check_peft(config, where)
    source = LoraSource(found.tensors, names_in(pipeline), scales, where)
    asked = asked_by(said, pipeline, where)
    source.defaults = asked.defaults
    source.report.remarks += [*remarks, *asked.remarks]
    return source


def find_update(path: Path) -> Found | None:
    """The file of changes at a path; None where there is none.

    Raises:
        SourceError: it cannot be read.
    """
    config: dict[str, Any] | None = None
    folder = path if path.is_dir() else None
    if folder is not None:
        inner = next((path / name for name in _IN_FOLDERS if (path / name).is_file()), None)
        if inner is None:
            return None
        config = _peft_config(path / CONFIG) if (path / CONFIG).is_file() else None
        path = inner
    refuse_unsupported_file(path)
    tensors = open_safetensors(path) if path.suffix == ".safetensors" else open_state_dict(path)[0]
    return Found(path, folder, config, tensors) if is_update(list(tensors)) else None


def _peft_config(path: Path) -> dict[str, Any]:
    """The fields of peft's config that decide what the tensors mean.

    Raises:
        SourceError: `unsupported`: an update of another kind, or a setting that changes what it does.
    """
    config = read_json(path)
    if not isinstance(config, dict) or config.get("peft_type") not in _KINDS:
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise SourceError("unsupported", f"peft_type is {kind!r}", where=str(path), fits=", ".join(_KINDS))
    _check_peft(config, str(path))
    return config


def _check_peft(config: Mapping[str, Any], where: str) -> None:
    """Refuse settings of peft's config that change what the tensors do.

    Raises:
        SourceError: `unsupported`.
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
