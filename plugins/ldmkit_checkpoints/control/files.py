"""Which files hold one adapter that reads hints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ldmkit import LazyTensor, Source, read_json
from ldmkit_checkpoints.control.folders import READERS
from ldmkit_checkpoints.control.source import AdapterFile
from ldmkit_checkpoints.control.t2i import prefix_of, t2i_of_keys

CONFIG = "config.json"


def open_adapter_file(tensors: Mapping[str, LazyTensor], path: Path) -> Source | None:
    """The reader for a file that holds one of these adapters alone, with diffusers' config.json beside it or without;
    None for others.

    Raises:
        SourceError: it is one, and its network cannot be told from its keys.
    """
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    if prefix_of(shapes) is None:
        return None
    beside = path.with_name(CONFIG)
    config = read_json(beside) if beside.is_file() else None
    cls = config.get("_class_name") if isinstance(config, dict) else None
    if isinstance(config, dict) and cls in READERS:
        name, reader = READERS[str(cls)]
        return AdapterFile(tensors, name, reader(config, shapes, str(beside)), str(path))
    return AdapterFile(tensors, "t2i", t2i_of_keys(shapes, str(path)), str(path))
