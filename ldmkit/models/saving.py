"""Atomic saving of a pipeline as a folder; a failed attempt leaves nothing behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.part import Part
from ldmkit.errors import InputError, LdmkitError, RunError, shown
from ldmkit.files.json import check_writable, fsync, write_json
from ldmkit.models.changed import explain_mixed_tensors, remark_unsaved
from ldmkit.models.compose import Parts, compose, part_spec
from ldmkit.models.digests import file_digests, spec_digest, tensor_digests
from ldmkit.models.mapped import check_mapped
from ldmkit.models.source import NativeFolder, assets_folder, part_file, weights_file
from ldmkit.models.spec import SPEC_FILE, PipelineSpec, owners_of
from ldmkit.models.weights import FLOATS, check, write_safetensors
from ldmkit.plugins.catalogue import name_of


def save_pipeline(parts: Parts, spec: PipelineSpec, folder: Path, store: torch.dtype | None = None) -> Path:
    """Write spec, tensors and vocabularies. A saved pipeline in the same folder is replaced at the end.

    Args:
        store: floating-point dtype of the tensors in the files. A pipeline loaded from them has the current dtype of
            this one (the widest if its parts differ). None stores the tensors unconverted.

    Raises:
        InputError: the folder exists and contains something else, or its parent does not exist.
        PluginError: `unregistered`: a part's class has no entry point, so the part could not be loaded again.
        RunError: `cannot-write`: no permission, a full disk; `mixed-tensors`: a part was quantised.
    """
    check_folder(folder)
    check_store(store)
    check_savable(parts)
    with replacing_folder(folder) as building:
        write_pipeline(parts, spec, building, store)
        check_written(building, folder)
    return folder


def check_savable(parts: Parts) -> None:
    """Whether parts could be loaded again.

    Raises:
        PluginError: `unregistered`; RunError: `file-changed`.
    """
    check_mapped(parts.items().values())
    for _, kind, part in parts.listed():
        name_of(kind, type(part))
    name_of("process", type(parts.process))
    remark_unsaved(parts.items())


def check_store(store: torch.dtype | None) -> None:
    """Check that weights can be stored in a dtype and loaded again.

    Raises:
        InputError: `dtype`: not a supported floating-point dtype.
    """
    if store is not None and not (isinstance(store, torch.dtype) and store in FLOATS):
        fits = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)
        raise InputError("dtype", f"weights cannot be stored as {shown(store)}", where="store", fits=fits)


def check_written(building: Path, folder: Path, *, without: frozenset[str] = frozenset()) -> None:
    """Compose the written spec and compare the tensors' names, shapes and dtypes, before an older folder is replaced.

    Args:
        without: paths of parts whose tensors are elsewhere.

    Raises:
        RunError: `cannot-read-back`.
    """
    try:
        source = NativeFolder(building, "off")
        elsewhere = {*owners_of(source.spec.conditioners), *without}
        for path, part in compose(source.spec).items().items():
            if path not in elsewhere:
                check(part, source.tensors(path), path)
    except LdmkitError as problem:
        what = f"the written files cannot be loaded again; an existing folder was left unchanged: {problem}"
        raise RunError("cannot-read-back", what, where=str(folder)) from problem


def save_part(kind: str, part: Part, folder: Path) -> Path:
    """Write a codec or a classifier by itself. A saved one in the same folder is replaced at the end.

    Raises:
        InputError, PluginError, RunError: as `save_pipeline`.
    """
    check_folder(folder, part_file(kind))
    check_mapped([part])
    name_of(kind, type(part))
    remark_unsaved({kind: part})
    with replacing_folder(folder) as building, explain_mixed_tensors({kind: part}):
        _write_part(part, kind, building, part.state_dict())
        write_spec(building / part_file(kind), part_spec(kind, part).model_dump(mode="json"))
    return folder


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary sibling folder, which replaces `folder` if the block succeeds and is deleted otherwise.

    Raises:
        RunError: `cannot-write`: no permission, a full disk.
    """
    target = folder.absolute()
    try:
        building = Path(tempfile.mkdtemp(prefix=".ldmkit-", dir=target.parent))
        try:
            building.chmod(0o755)
            yield building
            for path in (*building.rglob("*"), building):
                fsync(path)
            aside = building.with_name(f"{building.name}-old")
            if target.exists():
                target.rename(aside)  # a crash between the two renames loses neither folder
            building.rename(target)
            fsync(target.parent)
            shutil.rmtree(aside, ignore_errors=True)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as problem:
        raise RunError("cannot-write", f"writing failed: {problem.strerror or problem}", where=str(folder)) from problem


def check_folder(folder: Path, spec_file: str = SPEC_FILE, own: frozenset[str] | None = None) -> None:
    """Check before a long conversion that a pipeline (or a part, with its spec file) can be saved in a folder.

    Args:
        own: what an older one in its place consists of; None: the parts of a pipeline.

    Raises:
        InputError: `folder-taken`, `no-folder`.
    """
    if not folder.absolute().parent.is_dir():
        raise InputError("no-folder", "the folder to write to does not exist", where=str(folder.absolute().parent))
    check_writable(folder.absolute().parent)
    if not (folder.exists() or folder.is_symlink()):
        return
    fits = "a new or empty folder"
    if folder.is_symlink() or not folder.is_dir():
        raise InputError("folder-taken", "it is not a plain folder", where=str(folder), fits=fits)
    if Path.cwd().is_relative_to(folder.resolve()):
        fits = "a separate folder, or another working directory"
        what = "it is or contains the current working directory, which would be replaced"
        raise InputError("folder-taken", what, where=str(folder), fits=fits)
    names = {path.name for path in folder.iterdir()}
    if names and spec_file not in names:
        raise InputError("folder-taken", f"it exists and has no {spec_file}", where=str(folder), fits=fits)
    ours = _OURS if own is None else own
    foreign = sorted(name for name in names - {spec_file} if name.removesuffix(".safetensors") not in ours)
    if foreign:
        what = f"it also contains {foreign[0]!r}, which saving would delete"
        raise InputError("folder-taken", what, where=str(folder), fits=fits)


_OURS = frozenset({"codec", "classifier", "denoiser", "conditioners", "adapters"})


def write_pipeline(
    parts: Parts, spec: PipelineSpec, folder: Path, store: torch.dtype | None, *, without: frozenset[str] = frozenset()
) -> None:
    """Write the files of a pipeline into an empty folder, but for those of the parts at the paths in `without`."""
    owners = owners_of(spec.conditioners)
    with explain_mixed_tensors(parts.items()):
        for path, part in parts.items().items():
            if path not in without:
                _write_part(part, path, folder, {} if path in owners else _stored(part.state_dict(), store))
        write_spec(folder / SPEC_FILE, _spec(parts, spec, store).to_json())


def write_spec(path: Path, data: dict[str, Any], names: Collection[str] | None = None) -> None:
    """Write the spec, after all other files, with their digests and its own.

    Args:
        names: the files to include; None includes all.
    """
    made = file_digests(path.parent, names)
    files = {name: one.model_dump(mode="json", exclude_none=True) for name, one in made.items()}
    data = {**data, "files": files}
    write_json(path, {**data, "digest": spec_digest(data)})


def _stored(state: Mapping[str, Tensor], store: torch.dtype | None) -> Mapping[str, Tensor]:
    if store is None:
        return state
    return {key: _narrowed(key, t, store) if t.is_floating_point() else t for key, t in state.items()}


def _narrowed(key: str, tensor: Tensor, store: torch.dtype) -> Tensor:
    most = torch.finfo(store).max
    if most < torch.finfo(tensor.dtype).max and tensor.numel():
        made = tensor.to(store)
        lost = int((~torch.isfinite(made) & torch.isfinite(tensor)).sum())
        if lost:
            kept = str(store).removeprefix("torch.")
            what = f"{lost} value(s) of {key!r} exceed {most:g}, the maximum of {kept}, and would become infinite"
            raise InputError("dtype", what, where="store", fits="bfloat16, or float32")
        return made
    return tensor.to(store)


def _spec(made: Parts, spec: PipelineSpec, store: torch.dtype | None) -> PipelineSpec:
    """The pipeline's spec, with the pipeline's current dtype if the spec must record one."""
    if store is None and spec.defaults.dtype is None:
        return spec
    parts = made.items().values()
    # parts that are always kept wide are ignored: they are widened again when loaded
    free = [part for part in parts if part.held_dtype(torch.float16) == torch.float16] or [*parts]
    floats = [t.dtype for part in free for t in part.state_dict().values() if t.is_floating_point()]
    name = str(reduce(torch.promote_types, floats)).removeprefix("torch.") if floats else None
    return spec.model_copy(update={"defaults": spec.defaults.model_copy(update={"dtype": name})})


def _write_part(part: Part, path: str, folder: Path, state: Mapping[str, Tensor]) -> None:
    if state:
        target = folder / weights_file(path)
        target.parent.mkdir(exist_ok=True)
        write_safetensors(target, state, tensor_digests(state))
    assets = folder / assets_folder(path)
    assets.mkdir(parents=True, exist_ok=True)
    part.save_assets(assets)
    for empty in (assets, assets.parent):
        if empty != folder and not any(empty.iterdir()):
            empty.rmdir()
