"""Checkpoints of a run: complete, atomic, and checked when they are read.

A checkpoint is a folder `step-00001000` of safetensors files and a `state.json`, with the digest of every file in
`manifest.json`. It is written in a folder beside, flushed to the disk and then renamed; older ones are removed
afterwards, so a kill at any moment leaves the ones before it as they were. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor

from ldmkit.errors import LdmkitError, RunError, SourceError
from ldmkit.jsonio import read_json, write_json
from ldmkit.value import Value
from ldmkit.weights import open_safetensors, write_safetensors

FORMAT = 1
STATE, MANIFEST = "state.json", "manifest.json"

_NAME = re.compile(r"step-([0-9]{8,})")
_LEFT = (".writing-", ".retired-")
"""Prefixes of folders that a killed run may leave behind."""


class CheckpointsSection(Value):
    """When checkpoints are written; one more is written at the end.

    Args:
        every: steps between two.
        keep: how many of the newest stay.
    """

    every: int = Field(default=1000, ge=1)
    keep: int = Field(default=2, ge=1)


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on.

    Args:
        step: optimiser steps that are done; the position in the data and every draw follow from it.
        tensors: file name without ending (`weights`, `ema`, `optimiser`) -> tensors by name.
        state: plain data: the recipe, the digests of frozen networks, the average's count of updates ...
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


def folder_of(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return checkpoints / f"step-{step:08d}"


def write(checkpoints: Path, made: Checkpoint, keep: int) -> Path:
    """Write a checkpoint, then remove all but the newest `keep`.

    Raises:
        RunError: `checkpoint-failed`: a full disk, no permission; the earlier ones are untouched.
    """
    target = folder_of(checkpoints, made.step)
    try:
        checkpoints.mkdir(parents=True, exist_ok=True)
        with _beside(checkpoints) as building:
            for name, tensors in made.tensors.items():
                write_safetensors(building / f"{name}.safetensors", tensors)
            write_json(building / STATE, {"format": FORMAT, "step": made.step, **made.state})
            files = sorted(building.iterdir())
            write_json(building / MANIFEST, {"files": {path.name: _digest(path) for path in files}})
            for path in (*building.iterdir(), building):
                _flush(path)
            if target.exists():  # a damaged one of the same step
                _retire(target)
            building.rename(target)
            _flush(checkpoints)
        _retire_others(checkpoints, made.step, keep)
    except (OSError, RunError) as problem:
        reason = problem.what if isinstance(problem, RunError) else f"{problem.strerror or problem}"
        reason = reason.removeprefix("writing failed: ")
        kept = newest(checkpoints)
        fits = f"the last good checkpoint is {kept}" if kept else "there is no earlier checkpoint"
        raise RunError("checkpoint-failed", f"writing failed: {reason}", where=str(target), fits=fits) from problem
    return target


def clean(checkpoints: Path) -> None:
    """Remove what a killed run left half-written or half-removed."""
    for path in checkpoints.glob(".*") if checkpoints.is_dir() else ():
        if path.name.startswith(_LEFT):
            shutil.rmtree(path, ignore_errors=True)


def resumable(checkpoints: Path) -> Path | None:
    """The newest good checkpoint; None for a run that has none yet.

    Raises:
        SourceError: `no-good-checkpoint`: all that there are are damaged; whether to begin anew is not decided here.
    """
    found, there = newest(checkpoints), _listed(checkpoints)
    if found is None and there:
        what = f"all {len(there)} checkpoints are damaged"
        fits = "--fresh begins anew, and keeps the folder aside"
        raise SourceError("no-good-checkpoint", what, where=str(checkpoints), fits=fits)
    return found


def newest(checkpoints: Path) -> Path | None:
    """The newest checkpoint whose files are all there and undamaged; a warning names those that are not."""
    for _, folder in _listed(checkpoints):
        try:
            verify(folder)
            return folder
        except SourceError as error:
            warnings.warn(f"checkpoint {folder} is left out: {error.what} ({error.where})", stacklevel=2)
    return None


def verify(folder: Path) -> None:
    """Compare every file with its digest.

    Raises:
        SourceError: `checkpoint-damaged`, naming the file.
    """
    try:
        digests = read_json(folder / MANIFEST)["files"]
        wanted = {str(name): str(digest) for name, digest in digests.items()}
    except (LdmkitError, KeyError, TypeError, AttributeError):
        where = str(folder / MANIFEST)
        raise SourceError("checkpoint-damaged", "its list of files cannot be read", where=where) from None
    for name, digest in {STATE: "", **wanted}.items():
        path = folder / name
        try:
            good = _digest(path) == digest
        except OSError as error:
            raise SourceError("checkpoint-damaged", f"{error.strerror or error}", where=str(path)) from None
        if not good:
            raise SourceError("checkpoint-damaged", "its bytes are not those that were written", where=str(path))


def read(folder: Path) -> Checkpoint:
    """A checkpoint from a folder that `verify` passed.

    Raises:
        SourceError: `checkpoint-version`: a newer ldmkit wrote it.
    """
    state = read_json(folder / STATE)
    if state.get("format") != FORMAT:
        what = f"format {state.get('format')!r} is not known here"
        raise SourceError("checkpoint-version", what, where=str(folder / STATE), fits=f"format {FORMAT}")
    tensors = {
        path.stem: {name: lazy.read(True) for name, lazy in open_safetensors(path).items()}
        for path in sorted(folder.glob("*.safetensors"))
    }
    return Checkpoint(int(state["step"]), tensors, state)


def difference(was: Any, now: Any, free: Collection[str], path: str = "") -> tuple[str, Any, Any] | None:
    """The first key (with both values) in which two recipes differ, those in `free` and below them left out."""
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
    """(step, folder), newest first."""
    folders = checkpoints.iterdir() if checkpoints.is_dir() else ()
    named = ((match, path) for path in folders if (match := _NAME.fullmatch(path.name)))
    return sorted(((int(match[1]), path) for match, path in named), reverse=True)


@contextmanager
def _beside(checkpoints: Path) -> Iterator[Path]:
    building = Path(tempfile.mkdtemp(prefix=_LEFT[0], dir=checkpoints))
    try:
        building.chmod(0o755)
        yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _retire_others(checkpoints: Path, step: int, keep: int) -> None:
    # newer ones are damaged: else the run would have gone on from them
    listed = _listed(checkpoints)
    newer, older = [c for s, c in listed if s > step], [c for s, c in listed if s <= step]
    for folder in (*newer, *older[keep:]):
        _retire(folder)


def _retire(folder: Path) -> None:
    """Remove a folder so that no moment leaves a part of it under its name."""
    aside = folder.with_name(f"{_LEFT[1]}{folder.name}")  # made by no new folder: the disk may be full
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
