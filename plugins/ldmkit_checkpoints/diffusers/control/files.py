"""Which files hold one adapter that reads hints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ldmkit import LazyTensor, Source, SourceError, read_json
from ldmkit_checkpoints.diffusers.control.controlnet import FIRST, controlnet_of_keys
from ldmkit_checkpoints.diffusers.control.folders import READERS
from ldmkit_checkpoints.diffusers.control.inferred import Shapes
from ldmkit_checkpoints.diffusers.control.source import AdapterFile
from ldmkit_checkpoints.diffusers.control.t2i import prefix_of, t2i_of_keys
from ldmkit_checkpoints.diffusers.control.union import FIRST as UNION
from ldmkit_checkpoints.diffusers.control.union import union_of_keys
from ldmkit_checkpoints.diffusers.control.xs import FIRST as XS
from ldmkit_checkpoints.diffusers.control.xs import xs_of_keys
from ldmkit_checkpoints.diffusers.parts import Component

CONFIG = "config.json"

MARK = "lora_controlnet"
"""Key of an empty tensor in every Control-LoRA."""

KINDS: tuple[tuple[str, Callable[[Shapes], bool], Callable[[Shapes, str], Component]], ...] = (
    ("t2i", lambda shapes: prefix_of(shapes) is not None, t2i_of_keys),
    ("union", lambda shapes: UNION in shapes, union_of_keys),
    ("xs", lambda shapes: XS in shapes, xs_of_keys),
    ("control", lambda shapes: FIRST in shapes, controlnet_of_keys),
)
"""The adapter's name, whether a file's keys are its, and what tells its network from them."""


def open_adapter_file(tensors: Mapping[str, LazyTensor], path: Path) -> Source | None:
    """The reader for a file that holds one of these adapters alone, with diffusers' config.json beside it or without;
    None for others.

    Raises:
        SourceError: it is one, and its network cannot be told from its keys.
    """
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    if MARK in shapes:
        what = "it is a Control-LoRA, which changes weights of the U-Net that it is attached to"
        raise SourceError("adapter-only", what, where=str(path), fits="Pipeline.with_adapter_file (--adapter)")
    kind = next(((name, of_keys) for name, sign, of_keys in KINDS if sign(shapes)), None)
    if kind is None:
        return None
    name, of_keys = kind
    beside = path.with_name(CONFIG)
    config = read_json(beside) if beside.is_file() else None
    cls = config.get("_class_name") if isinstance(config, dict) else None
    if isinstance(config, dict) and isinstance(cls, str) and READERS.get(cls, ("", None))[0] == name:
        return AdapterFile(tensors, name, READERS[cls][1](config, shapes, str(beside)), str(path))
    source = AdapterFile(tensors, name, of_keys(shapes, str(path)), str(path))
    source.report.notes.append("config from its keys")
    return source
