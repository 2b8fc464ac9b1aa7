"""Which files are IP-Adapters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit import LazyTensor, Source
from ldmkit.models.composed import Composed
from ldmkit.models.weights import open_safetensors
from ldmkit_checkpoints.ip_adapter.keys import ATTENTION, IMAGE
from ldmkit_checkpoints.ip_adapter.source import IPAdapterSource
from ldmkit_checkpoints.torchfile.state_dict import SUFFIXES, open_pickled
from ldmkit_checkpoints.unsupported.files import refuse_unsupported_file


def open_ip_adapter(path: Path, pipeline: Composed, options: Mapping[str, Any]) -> Source | None:
    """The reader for an IP-Adapter's file; None where it is none.

    Raises:
        SourceError: it is one, and does not fit the pipeline or cannot be read.
    """
    if not path.is_file() or path.suffix not in (".safetensors", *SUFFIXES):
        return None
    refuse_unsupported_file(path)
    tensors = open_safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    if not (_any(tensors, IMAGE) and _any(tensors, ATTENTION)):
        return None
    return IPAdapterSource(tensors, pipeline, options, str(path))


def _any(tensors: Mapping[str, LazyTensor], start: str) -> bool:
    return any(key.startswith(start) for key in tensors)


def _pickled(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a torch file with one mapping for each of the two halves, or with their names before the keys."""
    tree = open_pickled(path)
    found: dict[str, LazyTensor] = {}
    for name, value in tree.items() if isinstance(tree, dict) else ():
        inner = value.items() if isinstance(value, Mapping) else ()
        found |= {f"{name}.{key}": tensor for key, tensor in inner if isinstance(tensor, LazyTensor)}
        if isinstance(value, LazyTensor):
            found[str(name)] = value
    return found
