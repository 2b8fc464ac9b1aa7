"""Checkpoints of a run: complete, atomic, and checked when they are read.

A checkpoint is a folder `step-00001000` of safetensors files and a `state.json`, with the digest of every file in
`manifest.json`. It is written to a temporary folder beside it, flushed to disk and then renamed; older checkpoints are
removed afterwards, so that a kill at any moment leaves them intact. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor

from ldmkit import LdmkitError, RunError, SourceError, Value, read_json, shown, write_json
from ldmkit.files.reading import check_ordinary
from ldmkit.models.weights import open_safetensors, write_safetensors
from ldmkit_training.loop.best import BestSection

FORMAT = 1
STATE, MANIFEST = "state.json", "manifest.json"

_NAME = re.compile(r"step-([0-9]{8,})")
_DAMAGED = "source.checkpoint-damaged"
_LEFT = (".writing-", ".retired-")
"""Prefixes of folders that a killed run may leave behind."""


class CheckpointsSection(Value):
    """When checkpoints are written; another is written at the end of the run.

    Args:
        every: interval in steps.
        keep: number of newest checkpoints to keep.
        best: also keep the model with the best validation so far, see `BestSection`; null: only the last model.
    """

    every: int = Field(default=1000, ge=1)
    keep: int = Field(default=2, ge=1)
    best: BestSection | None = None


@dataclass(frozen=True)
class Checkpoint:
    """The state a run needs to resume.

    Args:
        step: completed optimiser steps; the position in the data and every draw follow from it.
        tensors: file name without ending (`weights`, `ema`, `optimiser`) -> tensors by name.
        state: plain data: the recipe, the digests of frozen networks, the average's count of updates ...
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


def folder_of(checkpoints: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return checkpoints / f"step-{step:08d}"


def write(checkpoints: Path, made: Checkpoint, keep: int) -> Path:
    """Write a checkpoint, then remove all but the newest `keep`.

    Raises:
        RunError: `checkpoint-failed`: disk full, or no permission; earlier checkpoints are untouched.
    """
    target = folder_of(checkpoints, made.step)
    try:
        checkpoints.mkdir(parents=True, exist_ok=True)
        with _beside(checkpoints) as building:
            for name, tensors in made.tensors.items():
                write_safetensors(building / f"{name}.safetensors", tensors)
            counts = {name: len(tensors) for name, tensors in made.tensors.items()}
            write_json(building / STATE, {"format": FORMAT, "step": made.step, "tensors": counts, **made.state})
            files = sorted(building.iterdir())
            write_json(building / MANIFEST, {"files": {path.name: _digest(path) for path in files}})
            for path in (*building.iterdir(), building):
                _flush(path)
            _make_room(target)
            building.rename(target)
            _flush(checkpoints)
        newer = [folder for step, folder in _listed(checkpoints) if step > made.step]
        _retire_all(newer)  # these are damaged: otherwise the run would have resumed from them
        keep_newest(checkpoints, made.step, keep)
    except (OSError, RunError) as problem:
        reason = problem.what if isinstance(problem, RunError) else f"{problem.strerror or problem}"
        reason = reason.removeprefix("writing failed: ")
        kept = newest(checkpoints)
        fits = f"the last good checkpoint is {kept}" if kept else "there is no earlier checkpoint"
        raise RunError("checkpoint-failed", f"writing failed: {reason}", where=str(target), fits=fits) from problem
    return target


def keep_newest(checkpoints: Path, step: int, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints up to a step; newer ones stay.

    Needed when a run was killed after writing its last checkpoint but before removing the earlier ones.
    """
    _retire_all([folder for at, folder in _listed(checkpoints) if at <= step][keep:])


def clean(checkpoints: Path) -> None:
    """Remove folders that a killed run left partly written or partly removed."""
    for path in checkpoints.glob(".*") if checkpoints.is_dir() else ():
        if path.name.startswith(_LEFT):
            _remove(path)


def resumable(checkpoints: Path, fits: Callable[[Checkpoint], None] = lambda _: None) -> Checkpoint | None:
    """The newest intact checkpoint; None for a run that has none yet.

    Args:
        fits: called with each intact checkpoint; a SourceError skips it like a damaged one, other errors end the
            search.

    Raises:
        SourceError: `no-good-checkpoint`: all existing checkpoints are damaged; starting over is left to the caller.
            `checkpoint-version`: the newest was written by a newer ldmkit; it is neither skipped nor removed.
    """
    left_out = []
    _name_others(checkpoints)
    for _, folder in _listed(checkpoints):
        try:
            verify(folder)
            found = read(folder)
            fits(found)
            return found
        except LdmkitError as error:
            if error.code != _DAMAGED:
                raise
            left_out.append(f"{error.what} ({error.where})")
            warnings.warn(f"checkpoint {folder} is left out: {left_out[-1]}", stacklevel=2)
    if left_out:
        what = f"all {len(left_out)} checkpoints are damaged; of the newest, {left_out[0]}"
        hint = "--fresh begins anew, and keeps the folder aside"
        raise SourceError("no-good-checkpoint", what, where=str(checkpoints), fits=hint)
    return None


def newest(checkpoints: Path) -> Path | None:
    """The newest checkpoint whose files are complete and intact; warns of those that are not."""
    for _, folder in _listed(checkpoints):
        try:
            verify(folder)
            return folder
        except SourceError as error:
            warnings.warn(f"checkpoint {folder} is left out: {error.what} ({error.where})", stacklevel=2)
    return None


def verify(folder: Path) -> None:
    """Check every file against its digest.

    Raises:
        SourceError: `checkpoint-damaged`, naming the file.
    """
    for name, digest in {STATE: "", **_digests(folder)}.items():
        path = folder / name
        try:
            check_ordinary(path)
            good = _digest(path) == digest
        except (SourceError, OSError) as error:
            what = error.what if isinstance(error, SourceError) else f"{error.strerror or error}"
            raise damaged(what, path) from None
        if not good:
            raise damaged("its bytes are not those that were written", path)


def read(folder: Path) -> Checkpoint:
    """A checkpoint from a folder that `verify` passed.

    Raises:
        SourceError: `checkpoint-version`: a newer ldmkit wrote it; `checkpoint-damaged`: its files do not describe a
            checkpoint of that step.
    """
    state = _state(folder)
    tensors: dict[str, Mapping[str, Tensor]] = {}
    for path in (folder / name for name in sorted(_digests(folder)) if name.endswith(".safetensors")):
        try:
            tensors[path.stem] = {name: lazy.read(True) for name, lazy in open_safetensors(path).items()}
        except LdmkitError as error:
            raise damaged(error.what, path) from None
    for name, written in state.get("tensors", {}).items():  # the first releases did not record counts
        if (held := len(tensors.get(name, ()))) != written:
            what = f"{held} tensors, {shown(written)} were written"
            raise damaged(what, folder / f"{name}.safetensors")
    return Checkpoint(state["step"], tensors, state)


def damaged(what: str, path: Path) -> SourceError:
    """The error for a checkpoint that cannot be resumed from; the previous one may be usable."""
    return SourceError("checkpoint-damaged", what, where=str(path))


def _state(folder: Path) -> dict[str, Any]:
    path = folder / STATE
    try:
        state = read_json(path, infinities=True)
    except LdmkitError as error:
        raise damaged(error.what, path) from None
    if not isinstance(state, dict):
        raise damaged("it is no JSON object", path)
    made_by = state.get("format")
    if type(made_by) is int and made_by > FORMAT:
        fits = f"format {FORMAT}, or a newer ldmkit"
        raise SourceError("checkpoint-version", f"format {made_by} is not known here", where=str(path), fits=fits)
    if made_by != FORMAT:
        raise damaged(f"format {shown(made_by)} is none", path)
    if type(state.get("step")) is not int or folder_of(folder.parent, state["step"]).name != folder.name:
        raise damaged(f"it is of step {shown(state.get('step'))}, which is not the folder's", path)
    if not isinstance(state.get("tensors", {}), dict):
        raise damaged("'tensors' is no JSON object", path)
    return state


def _digests(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST
    try:
        digests = {str(name): str(digest) for name, digest in read_json(path)["files"].items()}
    except (LdmkitError, KeyError, TypeError, AttributeError):
        raise damaged("its list of files cannot be read", path) from None
    for name in digests:
        if name != Path(name).name or "\0" in name:
            raise damaged(f"{shown(name)} is no file of this folder", path)
    return digests


def difference(was: Any, now: Any, free: Collection[str], path: str = "") -> tuple[str, Any, Any] | None:
    """The first key, with both values, in which two recipes differ; keys in `free` and below are ignored."""
    if path in free:
        return None
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys((*was, *now)):
            inner = f"{path}.{key}" if path else str(key)
            found = difference(was.get(key), now.get(key), free, inner)
            if found is not None:
                return found
        return None
    return None if was == now else (path, was, now)


def _listed(checkpoints: Path) -> list[tuple[int, Path]]:
    """(step, folder), newest first; anything else with such a name is not a checkpoint."""
    folders = checkpoints.iterdir() if checkpoints.is_dir() else ()
    named = ((int(match[1]), path) for path in folders if (match := _NAME.fullmatch(path.name)))
    ours = ((step, path) for step, path in named if folder_of(checkpoints, step).name == path.name and path.is_dir())
    return sorted(ours, reverse=True)


def _name_others(checkpoints: Path) -> None:
    """Warn of anything that is named like a checkpoint but is not one."""
    ours = {path for _, path in _listed(checkpoints)}
    for path in sorted(checkpoints.iterdir()) if checkpoints.is_dir() else ():
        if path.name.startswith("step-") and path not in ours:
            warnings.warn(f"{path} is named like a checkpoint and is none; it is left as it is", stacklevel=3)


@contextmanager
def _beside(checkpoints: Path) -> Iterator[Path]:
    building = Path(tempfile.mkdtemp(prefix=_LEFT[0], dir=checkpoints))
    try:
        building.chmod(0o755)
        yield building
    finally:
        _remove(building)


def _retire_all(folders: Iterable[Path]) -> None:
    for folder in folders:
        try:
            _retire(folder)
        except OSError as problem:  # no checkpoint is lost
            warnings.warn(f"checkpoint {folder} cannot be removed: {problem.strerror or problem}", stacklevel=3)


def _make_room(target: Path) -> None:
    """Remove a damaged checkpoint of the same step; anything else of that name is moved aside."""
    if target.is_dir() and not target.is_symlink():
        _retire(target)
    elif os.path.lexists(target):
        aside = _free(target.with_name(f"aside-{target.name}"))
        target.rename(aside)
        warnings.warn(f"{target} is no checkpoint; it was moved to {aside.name}", stacklevel=3)


def _retire(folder: Path) -> None:
    """Remove a folder atomically: its name never refers to a partly removed folder."""
    aside = folder.with_name(f"{_LEFT[1]}{folder.name}")  # a rename, not a new folder: the disk may be full
    _remove(aside)
    aside = _free(aside)
    folder.rename(aside)
    _remove(aside)


def _remove(path: Path) -> None:
    """Remove a folder with its contents, or a file, link or FIFO; whatever cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _free(path: Path) -> Path:
    """`path`, or `path` with the first number appended that is not taken."""
    numbered = (path.with_name(f"{path.name}.{number}") for number in count(1))
    return next(free for free in chain((path,), numbered) if not os.path.lexists(free))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
