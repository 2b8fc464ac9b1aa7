"""Which files and folders hold changes to weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ldmkit import LazyTensor, Source
from ldmkit.models.composed import Composed
from ldmkit.models.weights import open_safetensors
from ldmkit_checkpoints.lora.bases import compare
from ldmkit_checkpoints.lora.dialects import is_update
from ldmkit_checkpoints.lora.few_steps import asked_by
from ldmkit_checkpoints.lora.layers import names_in
from ldmkit_checkpoints.lora.peft_config import CONFIG, check_peft, read_peft_config, wrapped_network
from ldmkit_checkpoints.lora.said import Said, said_of
from ldmkit_checkpoints.lora.scales import Scales
from ldmkit_checkpoints.lora.source import LoraSource
from ldmkit_checkpoints.torchfile.state_dict import open_state_dict
from ldmkit_checkpoints.unsupported.files import refuse_unsupported_file

_IN_FOLDERS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors", "adapter_model.bin")
PEFT_STEM, PEFT_START = "adapter_model", "base_model.model."
"""Name of peft's file, which belongs with the config beside it, and the beginning of its keys."""


class Found(NamedTuple):
    """A file of changes, the folder that was named in its place, and peft's config beside it."""

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
    remarks = [*said.unread, *_remarks(found), *compare(said, pipeline, where)]
    scales = Scales.of_metadata(said.metadata, where)
    if found.config is not None:
        scales = Scales({"any": found.config}, where)
    for config in scales.configs:
        check_peft(config, where)
    network = None if found.config is None else wrapped_network(found.config, where)
    source = LoraSource(found.tensors, names_in(pipeline), scales, where, network=network)
    asked = asked_by(said, pipeline, where)
    source.defaults = asked.defaults
    source.report.remarks += [*remarks, *asked.remarks]
    return source


def find_update(path: Path) -> Found | None:
    """The file of changes at a path; None where there is none.

    Raises:
        SourceError: it cannot be read.
    """
    folder = path if path.is_dir() else None
    if folder is not None:
        inner = next((path / name for name in _IN_FOLDERS if (path / name).is_file()), None)
        if inner is None:
            return None
        path = inner
    refuse_unsupported_file(path)
    tensors = open_safetensors(path) if path.suffix == ".safetensors" else open_state_dict(path)[0]
    if not is_update(list(tensors)):
        return None
    own = (folder is not None or path.stem == PEFT_STEM) and (path.parent / CONFIG).is_file()
    return Found(path, folder, read_peft_config(path.parent / CONFIG) if own else None, tensors)


def _remarks(found: Found) -> list[str]:
    """What is told of a file that peft wrote and whose config is not there."""
    if found.config is not None or not any(key.startswith(PEFT_START) for key in found.tensors):
        return []
    return [f"its keys are peft's, and there is no {CONFIG} beside it, which says alpha: the rank is taken for it"]
