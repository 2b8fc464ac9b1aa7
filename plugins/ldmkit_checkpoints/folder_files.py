"""Files of a diffusers folder: paths that stay inside, weights in one file or in shards, variants."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit.errors import SourceError
from ldmkit.jsonio import inside, read_json
from ldmkit.weights import LazyTensor, open_safetensors
from ldmkit_checkpoints.pickled import open_state_dict

_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_SUFFIXES = (".safetensors", ".bin")
RAW = "non_ema"
"""The variant under which some folders keep the weights that were not averaged."""


def member(folder: Path, name: str, root: Path | None = None) -> Path:
    """`folder / name`, refused if it leads out of `root` (None: the folder).

    A snapshot of the hub's cache, `snapshots/<revision>`, holds links into the `blobs` beside `snapshots`: those,
    and nothing else, may be followed.

    Raises:
        SourceError: `path-escapes`.
    """
    top = folder if root is None else root
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise SourceError("path-escapes", f"{name!r} leads out of the folder", where=str(folder))
    path = folder / name
    revision = top.resolve()
    if revision.parent.name == "snapshots" and path.resolve().parent == revision.parent.parent / "blobs":
        return path
    return inside(top, str(path.relative_to(top)))


def read_member_json(folder: Path, name: str, root: Path | None = None) -> Any:
    """A JSON object in a folder.

    Raises:
        SourceError: `path-escapes`, `not-found`, `json-invalid`, or it is no object.
    """
    data = read_json(member(folder, name, root), infinities=True)  # diffusers writes -Infinity for open bounds
    if not isinstance(data, dict):
        raise SourceError("json-invalid", "not a JSON object", where=str(folder / name))
    return data


def component_tensors(folder: Path, root: Path, ema: bool | None = None) -> tuple[dict[str, LazyTensor], list[str]]:
    """Tensors of a component's folder, whatever its weights are kept in; and notes about the choice.

    Args:
        ema: False prefers the weights of variant `non_ema` where the folder has them.

    Raises:
        SourceError: no weights, several variants and no plain one, unreadable files, broken shard lists.
    """
    variants = _variants(folder)
    wanted = RAW if ema is False and RAW in variants else ""
    if wanted not in variants:
        others = sorted(name for name in variants if name != RAW)
        if len(others) != 1:
            what = f"variants {others} and no plain weights" if others else "there are no weights"
            fits = "diffusion_pytorch_model.safetensors, model.safetensors, their .bin, or shards with an index"
            raise SourceError("no-weights", what, where=str(folder), fits=fits)
        wanted = others[0]
    notes = [f"{folder.name}: weights of variant {wanted!r}"] if wanted else []
    path = member(folder, variants[wanted], root)
    if path.name.endswith(".json"):
        return _sharded(folder, path, root), notes
    return _open(path), notes


def _variants(folder: Path) -> dict[str, str]:
    """variant ('' for the plain one) -> file name; safetensors before pickles, one file before shards."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    found: dict[str, str] = {}
    for suffix in _SUFFIXES:
        for index in ("", ".index"):
            for name in names:
                variant = _variant(name, suffix, index)
                if variant is not None:
                    found.setdefault(variant, name)
    return found


def _variant(name: str, suffix: str, index: str) -> str | None:
    """The variant of a weights file's name, None if it is no such file."""
    for stem in _STEMS:
        if not name.startswith(f"{stem}."):
            continue
        rest = name.removeprefix(stem)
        if index:
            if rest.startswith(f"{suffix}.index.") and rest.endswith(".json"):
                return rest.removeprefix(f"{suffix}.index").removesuffix(".json").strip(".")
            if rest.endswith(f"{suffix}.index.json"):
                return rest.removesuffix(f"{suffix}.index.json").strip(".")
        elif rest.endswith(suffix) and rest.count(".") <= 2 and "-of-" not in rest:
            return rest.removesuffix(suffix).strip(".")
    return None


def _sharded(folder: Path, index: Path, root: Path) -> dict[str, LazyTensor]:
    listed = read_json(index)
    places = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise SourceError("shards-invalid", "the index has no weight_map of file names", where=str(index))
    shards: dict[str, Mapping[str, LazyTensor]] = {}
    for name in sorted(set(places.values())):
        shards[name] = _open(member(folder, name, root))
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
