"""Which files and folders hold changes to weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ldmkit import Source, SourceError, read_json
from ldmkit.models.composed import Composed
from ldmkit.models.weights import open_safetensors, read_metadata
from ldmkit_checkpoints.lora.dialects import is_update
from ldmkit_checkpoints.lora.layers import names_in
from ldmkit_checkpoints.lora.scales import Scales
from ldmkit_checkpoints.lora.source import LoraSource
from ldmkit_checkpoints.torchfile.state_dict import open_state_dict
from ldmkit_checkpoints.unsupported.files import refuse_unsupported_file

CONFIG = "adapter_config.json"
_IN_FOLDERS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors", "adapter_model.bin")
_KINDS = ("LORA", "LOHA", "LOKR")
_MEANS_NOTHING = (None, False, "none", [], {})


def open_update(path: Path, pipeline: Composed) -> Source | None:
    """The reader for a LoRA's file or folder; None where it is none.

    Raises:
        SourceError: it is one, and does not fit the pipeline or cannot be read.
    """
    config: dict[str, Any] | None = None
    if path.is_dir():
        inner = next((path / name for name in _IN_FOLDERS if (path / name).is_file()), None)
        if inner is None:
            return None
        config = _peft_config(path / CONFIG) if (path / CONFIG).is_file() else None
        path = inner
    refuse_unsupported_file(path)
    safe = path.suffix == ".safetensors"
    tensors = open_safetensors(path) if safe else open_state_dict(path)[0]
    if not is_update(list(tensors)):
        return None
    where = str(path)
    scales = Scales.of_metadata(read_metadata(path) if safe else {}, where)
    if config is not None:
        scales = Scales({"any": config}, where)
    return LoraSource(tensors, names_in(pipeline), scales, where)


def _peft_config(path: Path) -> dict[str, Any]:
    """The fields of peft's config that decide what the tensors mean.

    Raises:
        SourceError: `unsupported`: an update of another kind, or a setting that changes what it does.
    """
    config = read_json(path)
    if not isinstance(config, dict) or config.get("peft_type") not in _KINDS:
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise SourceError("unsupported", f"peft_type is {kind!r}", where=str(path), fits=", ".join(_KINDS))
    if config.get("bias", "none") != "none":
        what = f"bias is {config['bias']!r}: biases were trained too"
        raise SourceError("unsupported", what, where=str(path), fits='bias "none"')
    for field in ("lora_bias", "layer_replication", "megatron_config", "trainable_token_indices", "modules_to_save"):
        if config.get(field) not in _MEANS_NOTHING:
            what = f"{field} is {config[field]!r}, which ldmkit does not build"
            raise SourceError("unsupported", what, where=str(path), fits=f"an adapter without {field}")
    return config
