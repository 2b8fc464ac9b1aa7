"""Safe file access: JSON without duplicate keys, atomic writes, and paths that cannot leave their folder."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

from ldmkit.errors import InputError, LdmkitError, RunError, SourceError, shown
from ldmkit.files.reading import read_file

MAX_TEXT_BYTES = 64 * 2**20

_SURROGATES = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
"""Surrogates, as JSON escapes or encoded in UTF-8."""

_INTEGER = re.compile(r"-?[0-9]{1,30}", re.ASCII)


def parse_json(
    text: str | bytes, where: str, error: type[LdmkitError] = SourceError, *, infinities: bool = False
) -> Any:
    """Parse JSON; duplicate keys and NaN are refused, as are infinities unless `infinities` is set.

    Raises:
        error: `json-invalid` or `duplicate-key`.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in items:
            if key in seen:
                raise error("duplicate-key", f"duplicate key {key!r}", where=where)
            seen[key] = value
        return seen

    def constant(name: str) -> Any:
        if infinities and name != "NaN":
            return float(name)
        raise error("json-invalid", f"{shown(name)} is not a number", where=where)

    def number(digits: str) -> float:
        value = float(digits)
        return value if isfinite(value) else constant(digits)

    try:
        found = json.loads(text, object_pairs_hook=pairs, parse_constant=constant, parse_float=number)
        if _SURROGATES.search(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")):
            # fails for lone surrogates, which no later step could encode
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except LdmkitError:
        raise  # InputError is also a ValueError
    except (ValueError, RecursionError) as problem:
        raise error("json-invalid", f"not valid JSON: {problem}", where=where) from None


def read_json(path: Path, error: type[LdmkitError] = SourceError, *, infinities: bool = False) -> Any:
    """Parse a JSON file of at most 64 MiB.

    Raises:
        error: as `read_file` and `parse_json`.
    """
    text = read_file(path, MAX_TEXT_BYTES, error)
    return parse_json(text, str(path), error, infinities=infinities)


def raw_input(text: str) -> Any:
    """A command-line argument as data: JSON, the path of a .json file, an integer, or the text itself."""
    if text.endswith(".json"):
        return read_json(Path(text), InputError)
    if text[:1] in ("[", "{"):
        return parse_json(text, "argument", InputError)
    return int(text) if _INTEGER.fullmatch(text) else text


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, refused if it is outside the folder (through `..`, an absolute path or a symbolic link).

    The only exception is the hub's cache, where `snapshots/<revision>` contains links into the sibling folder `blobs`.

    Raises:
        SourceError: `path-escapes`.
    """
    path = folder / name
    root = folder.resolve()
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as problem:  # a loop of symbolic links
        raise SourceError("path-escapes", f"{name!r} cannot be resolved: {problem}", where=str(folder)) from None
    if not (target.is_relative_to(root) or target.is_relative_to(blobs)) or ".." in Path(name).parts:
        raise SourceError("path-escapes", f"{name!r} points outside of the folder", where=str(folder))
    return path


def check_target(path: Path) -> None:
    """Check before a long run that a file can be written, by creating a temporary file in its folder.

    Raises:
        InputError: the folder does not exist or is not writable, the path is a folder, or it is not a valid file name.
    """
    _check_place(path)
    check_writable(path.parent)


def _check_place(path: Path) -> None:
    try:
        has_folder, is_folder = path.parent.is_dir(), path.is_dir()
    except (OSError, ValueError) as problem:
        raise InputError("no-path", f"not a usable path: {problem}", where=str(path)[:200]) from None
    if not has_folder:
        raise InputError("no-folder", "the folder to write to does not exist", where=str(path.parent))
    if is_folder:
        raise InputError("is-folder", "the path is a folder", where=str(path), fits="the path of a file")


def check_writable(folder: Path) -> None:
    """Check that files can be created in a folder (permissions, read-only mounts, full disks) by creating one.

    Raises:
        InputError: `not-writable`.
    """
    try:
        with tempfile.NamedTemporaryFile(prefix=".ldmkit-", dir=folder):
            pass
    except OSError as problem:
        what = f"cannot create a file in the folder: {problem.strerror or problem}"
        raise InputError("not-writable", what, where=str(folder), fits="a folder with write permission") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, which replaces `path` if the block succeeds and is deleted otherwise.

    Raises:
        InputError: `no-path`, `no-folder`, `is-folder`.
        RunError: `cannot-write`: no permission, a full disk.
    """
    with _temporary_for(path) as temporary:
        yield temporary
        _finish(temporary)
        temporary.replace(path)
        fsync(path.parent)


def write_new(
    path: Path, write: Callable[[Path], object], *, overwrite: bool = False, first: int | None = None
) -> Path:
    """Write a file without replacing an existing one, and return its path: the first of `name.png`, `name-1.png`,
    `name-2.png` ... that is free at the moment of writing, even if other processes write to the same folder.

    Args:
        write: writes the file to the temporary path that it is given.
        overwrite: replace an existing file instead.
        first: start numbering here: `name-{first}.png` ...

    Raises:
        InputError, RunError: as `replacing`.
    """
    named = path if first is None else numbered(path, first)
    if overwrite:
        with replacing(named) as temporary:
            write(temporary)
        return named
    with _temporary_for(path) as temporary:
        write(temporary)
        _finish(temporary)
        number = first or 0
        while not _claim(temporary, named):
            number += 1
            named = numbered(path, number)
        fsync(path.parent)
    return named


def numbered(path: Path, number: int) -> Path:
    """`name.png` with a number appended: `name-3.png`."""
    return path.with_stem(f"{path.stem}-{number}")


def _claim(temporary: Path, path: Path) -> bool:
    """Give the file its name unless that exists; creating a hard link is atomic and never replaces a file."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: create an empty file first, then replace it
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        temporary.replace(path)
    return True


@contextmanager
def _temporary_for(path: Path) -> Iterator[Path]:
    _check_place(path)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=".ldmkit-", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
    except OSError as problem:
        raise RunError("cannot-write", f"writing failed: {problem.strerror or problem}", where=str(path)) from problem
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _finish(temporary: Path) -> None:
    temporary.chmod(0o644)
    fsync(temporary)


def fsync(path: Path) -> None:
    """Flush a file's data or a folder's entries to disk, so that a rename cannot survive a crash without them."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically, indented, with keys in their given order."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
