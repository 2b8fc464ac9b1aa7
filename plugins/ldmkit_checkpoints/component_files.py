"""Files of a component's folder, as diffusers and transformers write it: confined paths, weights in shards or not."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit import LazyTensor, SourceError, read_json
from ldmkit.files.json import inside
from ldmkit.models.weights import open_safetensors
from ldmkit_checkpoints.torchfile.state_dict import open_state_dict
from ldmkit_checkpoints.variants import is_shard, variants_in


def member(folder: Path, name: str, root: Path | None = None) -> Path:
    """`folder / name`, refused if it leads out of `root` (default: the folder).

    Only links from a snapshot in the hub's cache, `snapshots/<revision>`, to the `blobs` next to `snapshots` are
    followed.

    Raises:
        SourceError: `path-escapes`.
    """
    top = folder if root is None else root
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise SourceError("path-escapes", f"{name!r} points outside of the folder", where=str(folder))
    path = folder / name
    revision = top.resolve()
    if revision.parent.name == "snapshots" and path.resolve().parent == revision.parent.parent / "blobs":
        return path
    return inside(top, str(path.relative_to(top)))


def read_member_json(folder: Path, name: str, root: Path | None = None) -> Any:
    """Read a JSON object in a folder.

    Raises:
        SourceError: `path-escapes`, `not-found`, `json-invalid`, or it is not an object.
    """
    data = read_json(member(folder, name, root), infinities=True)  # diffusers writes -Infinity for an open bound
    if not isinstance(data, dict):
        raise SourceError("json-invalid", "not a JSON object", where=str(folder / name))
    return data


def component_tensors(folder: Path, root: Path, variant: str = "") -> dict[str, LazyTensor]:
    """Lazy tensors of a component's folder, from any supported file format.

    Args:
        variant: as chosen by `wanted_variants`, '' for the default weights.

    Raises:
        SourceError: missing weights, unreadable files, broken shard indices.
    """
    found = variants_in(folder)
    if variant not in found:
        raise _no_weights(folder)
    path = member(folder, found[variant], root)
    return _sharded(folder, path, root) if path.name.endswith(".json") else _open(path)


def _no_weights(folder: Path) -> SourceError:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    fits = "diffusion_pytorch_model.safetensors, model.safetensors, their .bin, or shards with an index"
    what = "there are no weights"
    if shards := [name for name in names if is_shard(name)]:
        what = f"there are shards, {shards[0]!r} ..., without the index that lists them"
        fits = "the index beside them, *.safetensors.index.json or *.bin.index.json"
    elif others := [name for name in names if name.endswith(_OTHERS)]:
        what = f"there are no weights of torch, but {', '.join(map(repr, others[:3]))}"
    return SourceError("no-weights", what, where=str(folder), fits=fits)


_OTHERS = (".onnx", ".msgpack", ".h5", ".gguf", ".xml", ".bin", ".safetensors", ".ckpt", ".mlmodelc", ".mlpackage")
"""Files of weights for other frameworks."""


def _sharded(folder: Path, index: Path, root: Path) -> dict[str, LazyTensor]:
    listed = read_json(index)
    places = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise SourceError("shards-invalid", "the index has no weight_map of file names", where=str(index))
    files = {name: member(folder, name, root) for name in sorted(set(places.values()))}
    if absent := [name for name, path in files.items() if not path.exists()]:
        what = f"{len(absent)} of {len(files)} shards are missing: {', '.join(map(repr, absent[:10]))}"
        raise SourceError("shards-missing", what, where=str(index), fits="all shards next to the index")
    shards: dict[str, Mapping[str, LazyTensor]] = {name: _open(path) for name, path in files.items()}
    found: dict[str, LazyTensor] = {}
    for key, name in places.items():
        if key not in shards[name]:
            raise SourceError(
                "shards-invalid", f"{key!r} is not in {name!r}, where the index puts it", where=str(index)
            )
        found[key] = shards[name][key]
    unlisted = [key for tensors in shards.values() for key in tensors if key not in places]
    if unlisted:
        what = f"{len(unlisted)} tensor(s) of the shards are not in the index: {unlisted[0]!r} ..."
        raise SourceError("shards-invalid", what, where=str(index))
    return found


def _open(path: Path) -> dict[str, LazyTensor]:
    return open_safetensors(path) if path.name.endswith(".safetensors") else open_state_dict(path)[0]


ADAPTED = ("pytorch_lora_weights", "learned_embeds", "pytorch_custom_diffusion_weights")
"""Stems of files written by diffusers' training scripts, which pipelines do not load themselves."""


def left_beside(folder: Path) -> list[str]:
    """Warn about, and return notes on, weights next to a pipeline that it does not include, as in diffusers."""
    names = sorted(path.name for path in folder.iterdir() if path.name.startswith(ADAPTED))
    if not names:
        return []
    said = f"{', '.join(names)} next to the pipeline: not applied; load and fuse them with diffusers, and save that"
    warnings.warn(f"{folder}: {said}", UserWarning, stacklevel=2)
    return [said]
