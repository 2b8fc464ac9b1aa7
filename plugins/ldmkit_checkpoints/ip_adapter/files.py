"""Which files are IP-Adapters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit import LazyTensor, Source, SourceError, WeightsError
from ldmkit.models.composed import Composed
from ldmkit.models.weights import open_safetensors
from ldmkit_checkpoints.ip_adapter.keys import ATTENTION, IMAGE
from ldmkit_checkpoints.ip_adapter.source import IPAdapterSource
from ldmkit_checkpoints.torchfile.state_dict import SUFFIXES, open_pickled
from ldmkit_checkpoints.unsupported.files import refuse_unsupported_file

FILE = "ip-adapter.safetensors"
"""The name of the file in a folder that training wrote."""


def open_ip_adapter(path: Path, pipeline: Composed, options: Mapping[str, Any]) -> Source | None:
    """The reader for an IP-Adapter's file, or for a folder with one that training wrote; None where it is none.

    Raises:
        SourceError: it is one, and does not fit the pipeline or cannot be read.
    """
    path = path / FILE if (path / FILE).is_file() else path
    if not path.is_file() or path.suffix not in (".safetensors", *SUFFIXES):
        return None
    refuse_unsupported_file(path)
    tensors = open_safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    tensors = {_published(key): tensor for key, tensor in tensors.items()}
    halves = [half for half in (IMAGE, ATTENTION) if any(key.startswith(half) for key in tensors)]
    if not halves:
        return None
    if len(halves) == 1:
        what = f"of an IP-Adapter there are the tensors of {halves[0].rstrip('.')!r} alone"
        fits = f"a file with {IMAGE.rstrip('.')!r} and {ATTENTION.rstrip('.')!r}"
        raise WeightsError("missing", what, where=str(path), fits=fits)
    return IPAdapterSource(tensors, pipeline, options, str(path))


def _published(key: str) -> str:
    """A key as it is published, also of what IP-Adapter's training saves."""
    for trained, half in _TRAINED.items():
        if key.startswith(trained):
            return half + key.removeprefix(trained)
    return key


_TRAINED = {"image_proj_model.": IMAGE, "adapter_modules.": ATTENTION}


def _pickled(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a torch file with one mapping for each of the two halves, or with their names before the keys.

    Raises:
        SourceError: `no-tensors`: other things than tensors in a half.
    """
    tree = open_pickled(path)
    found: dict[str, LazyTensor] = {}
    for name, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, LazyTensor):
            found[str(name)] = value
        elif f"{name}." in (IMAGE, ATTENTION) and isinstance(value, Mapping):
            for key, tensor in value.items():
                if not isinstance(tensor, LazyTensor):
                    what = f"{key!r} in {name!r} is a {type(tensor).__name__}, not a tensor"
                    raise SourceError("no-tensors", what, where=str(path))
                found[f"{name}.{key}"] = tensor
    return found
