"""Torch files (`.ckpt`, `.pt`, `.pth`, `.bin`) as lazy tensors: a zip archive with a pickle and raw storages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ldmkit import LazyTensor, SourceError
from ldmkit.files.reading import check_ordinary
from ldmkit.models.mapped import MappedFile
from ldmkit_checkpoints.torchfile.pickle_reader import CONVERT, Global, Storage, Stored, read_pickle
from ldmkit_checkpoints.torchfile.zip_archive import ZipEntry, checksum, entry_bytes, read_entries
from ldmkit_checkpoints.unsupported.tensors import refuse_unsupported_tensors

MAX_PICKLE_BYTES = 64 * 2**20

SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")

_TAR_BLOCK = 512


def open_pickled(path: Path) -> Any:
    """The contents of a torch file: plain containers with a `LazyTensor` for every tensor.

    No code in the file is executed or imported, see `pickle_reader`.

    Raises:
        SourceError: `not-found`, `truncated`, `legacy-format`, `torch-invalid`, `pickle-global` and the other
            errors of `read_pickle`, `storage-range`.
    """
    where = str(path)
    check_ordinary(path)
    entries, data = _archive(path)
    try:
        tree = read_pickle(data, where)
    except SourceError as error:
        if error.code == "source.pickle-global" and b"_rebuild_tensor_v3" in data:
            what = "it holds tensors of an unsupported dtype: 8-bit floats or unsigned integers"
            fits = "the same model in float16, bfloat16 or float32"
            raise SourceError("unsupported", what, where=where, fits=fits) from None
        raise
    return _lazy(tree, path, entries)


def open_state_dict(path: Path) -> tuple[dict[str, LazyTensor], dict[str, Any]]:
    """The tensors of a torch file by key, and the other top-level entries of a training checkpoint.

    Both layouts are read: {"state_dict": {...}, "epoch": ...} and a plain mapping of tensors.

    Raises:
        SourceError: the errors of `open_pickled`; `no-tensors` if it holds no mapping of tensors.
    """
    tree = open_pickled(path)
    if not isinstance(tree, dict):
        raise SourceError("no-tensors", f"the file holds a {type(tree).__name__}, no state dict", where=str(path))
    nested = tree.get("state_dict")
    extras = {k: v for k, v in tree.items() if isinstance(k, str)} if isinstance(nested, dict) else {}
    extras.pop("state_dict", None)
    level: Mapping[Any, Any] = nested if isinstance(nested, dict) else tree
    found: dict[str, LazyTensor] = {}
    for key, value in level.items():
        if not isinstance(key, str):
            refuse_unsupported_tensors(_names(tree), str(path))
            raise SourceError("no-tensors", f"the state dict has a key of type {type(key).__name__}", where=str(path))
        if not isinstance(value, LazyTensor):
            _refuse_tree(tree, str(path))
            what = f"{key!r} is a {type(value).__name__}, not a tensor"
            raise SourceError("no-tensors", what, where=str(path), fits="a state dict, or one under 'state_dict'")
        found[key] = value
    if not found:
        refuse_unsupported_tensors(_names(tree), str(path))
        raise SourceError("no-tensors", "the file holds no tensors", where=str(path))
    return found, extras


def _refuse_tree(tree: Mapping[Any, Any], where: str) -> None:
    """Explain what a file of nested containers is, or where its tensors are."""
    refuse_unsupported_tensors(_names(tree), where)
    inner = {
        key: value
        for key, value in tree.items()
        if isinstance(value, dict) and any(isinstance(one, LazyTensor) for one in value.values())
    }
    if inner:
        what = f"its tensors are under {', '.join(map(repr, inner))}, not under 'state_dict'"
        key = next(iter(inner))
        fits = f"torch.save({{'state_dict': checkpoint[{key!r}]}}, new_path), if these are the model's weights"
        raise SourceError("no-tensors", what, where=where, fits=fits)


def _names(tree: Any, before: str = "", depth: int = 0) -> list[str]:
    """The keys of nested mappings, joined by dots, four levels deep."""
    if not isinstance(tree, dict) or depth > 3:
        return []
    found: list[str] = []
    for key, value in tree.items():
        found += [f"{before}{key}", *_names(value, f"{before}{key}.", depth + 1)]
    return found


def _archive(path: Path) -> tuple[dict[str, ZipEntry], bytes]:
    where = str(path)
    _check_kind(path)
    listed = read_entries(path)
    pickles = [name for name in listed if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise SourceError("torch-invalid", "the zip archive holds no data.pkl", where=where, fits="a torch file")
    root = pickles[0].removesuffix("data.pkl")
    entries = {name.removeprefix(root): entry for name, entry in listed.items()}
    pickle, order = entries["data.pkl"], entries.get("byteorder")
    if pickle.size > MAX_PICKLE_BYTES:
        raise SourceError("too-large", f"a pickle of {pickle.size} bytes", where=where)
    if order is not None and (order.size > 16 or entry_bytes(path, order, "byteorder").strip() != b"little"):
        raise SourceError("torch-invalid", "the storages are big-endian", where=where, fits="little-endian")
    return entries, entry_bytes(path, pickle, "data.pkl")


def _check_kind(path: Path) -> None:
    where = str(path)
    with path.open("rb") as file:
        start = file.read(_TAR_BLOCK)
    if start[:4] == b"PK\x03\x04":
        return
    if len(start) < 4:
        raise SourceError("truncated", f"{len(start)} bytes is too short for a torch file", where=where)
    # recognised by the first block: tarfile would decompress an archive to find out
    if start[257:262] == b"ustar" or start[:1] == b"\x80":
        what = "written in torch's format from before version 1.6"
        raise SourceError("legacy-format", what, where=where, fits=f"torch's zip format; {CONVERT}")
    raise SourceError("torch-invalid", "neither a zip archive nor a pickle", where=where, fits="a torch file")


def _lazy(tree: Any, path: Path, entries: Mapping[str, ZipEntry]) -> Any:
    """The same containers with lazy tensors; shared and self-referential containers are kept."""

    @cache
    def mapped() -> torch.UntypedStorage:
        # as torch.load(mmap=True) does: private pages, never written back
        return cast(torch.UntypedStorage, torch.UntypedStorage.from_file(str(path), False, path.stat().st_size))

    file = MappedFile(path)

    data = {name.removeprefix("data/"): entry for name, entry in entries.items() if name.startswith("data/")}
    sums = {key: checksum(path, entry, f"data/{key}") for key, entry in data.items()}
    done: dict[int, Any] = {}

    def walk(node: Any, depth: int = 0) -> Any:
        if isinstance(node, Stored):
            return _tensor(node, file, entries, sums, mapped)
        if isinstance(node, Global):
            return node.dtype if node.what == "dtype" else node.name
        if isinstance(node, Storage):
            raise SourceError("pickle-invalid", "a bare storage", where=str(path), fits="tensors")
        if not isinstance(node, (dict, list, tuple)):
            return node
        if depth > 100:
            raise SourceError("pickle-invalid", "containers nested more than 100 deep", where=str(path))
        if id(node) in done:
            return done[id(node)]
        if isinstance(node, dict):
            made: Any = {}
            done[id(node)] = made
            made.update((key, walk(value, depth + 1)) for key, value in node.items())
            return made
        if isinstance(node, list):
            made = []
            done[id(node)] = made
            made.extend(walk(value, depth + 1) for value in node)
            return made
        done[id(node)] = tuple(walk(value, depth + 1) for value in node)
        return done[id(node)]

    return walk(tree)


def _tensor(
    stored: Stored,
    file: MappedFile,
    entries: Mapping[str, ZipEntry],
    sums: Mapping[str, Callable[[], None]],
    mapped: Callable[[], torch.UntypedStorage],
) -> LazyTensor:
    storage, offset, shape, stride = stored
    path = file.path
    begin = _storage_begin(storage, entries, str(path))
    check_sum = sums[storage.key]
    width = storage.dtype.itemsize
    first = begin + offset * width
    # from the first to the last element of the view, which need not be contiguous
    count = 0 if 0 in shape else 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))

    def read(copy: bool) -> Tensor:
        check_sum()
        if copy or begin % width:
            flat = file.read(first, count * width).view(storage.dtype)
            return flat.as_strided(shape, stride)
        view = torch.empty(0, dtype=storage.dtype)
        return file.holds(view.set_(mapped()[begin : begin + storage.numel * width], offset, shape, stride), begin)

    return LazyTensor(shape, storage.dtype, read)


def _storage_begin(storage: Storage, entries: Mapping[str, ZipEntry], where: str) -> int:
    entry = entries.get(f"data/{storage.key}")
    if entry is None:
        raise SourceError("torch-invalid", f"storage {storage.key!r} is not in the archive", where=where)
    if entry.size < storage.numel * storage.dtype.itemsize:
        what = f"storage {storage.key!r} claims {storage.numel} elements and has {entry.size} bytes"
        raise SourceError("storage-range", what, where=where)
    return entry.begin
