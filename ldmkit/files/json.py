"""Reading and writing files without surprises: JSON without duplicate keys, atomic writes, paths that stay inside."""

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

_HALVES = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
"""What may be half of a pair that stands for one character."""

_INTEGER = re.compile(r"-?[0-9]{1,30}", re.ASCII)


def parse_json(
    text: str | bytes, where: str, error: type[LdmkitError] = SourceError, *, infinities: bool = False
) -> Any:
    """JSON with duplicate keys and NaN refused, and infinities unless they are asked for.

    Raises:
        error: `json-invalid` or `duplicate-key`, naming the place.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in items:
            if key in seen:
                raise error("duplicate-key", f"the key {key!r} stands twice", where=where)
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
        if _HALVES.search(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")):
            # half of a pair is no character: nothing that is made of it can be encoded
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except LdmkitError:
        raise  # an InputError is a ValueError too
    except (ValueError, RecursionError) as problem:
        raise error("json-invalid", f"not valid JSON: {problem}", where=where) from None


def read_json(path: Path, error: type[LdmkitError] = SourceError, *, infinities: bool = False) -> Any:
    """The JSON in a file of at most 64 MiB.

    Raises:
        error: those of `read_file` and of `parse_json`.
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
    """`folder / name`, refused if it leaves the folder (by `..`, an absolute path or a symbolic link).

    The hub's cache is the one exception: its `snapshots/<revision>` consists of links into `blobs` beside it.

    Raises:
        SourceError: `path-escapes`.
    """
    path = folder / name
    root = folder.resolve()
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as problem:  # a loop of symbolic links
        raise SourceError("path-escapes", f"{name!r} leads nowhere: {problem}", where=str(folder)) from None
    if not (target.is_relative_to(root) or target.is_relative_to(blobs)) or ".." in Path(name).parts:
        raise SourceError("path-escapes", f"{name!r} leads out of the folder", where=str(folder))
    return path


def check_target(path: Path) -> None:
    """Whether a file can be written there, tried out in its folder: asked before a long run, not after it.

    Raises:
        InputError: its folder does not exist or takes no files, it is a folder itself, or no file can have that name.
    """
    _check_place(path)
    check_writable(path.parent)


def _check_place(path: Path) -> None:
    try:
        has_folder, is_folder = path.parent.is_dir(), path.is_dir()
    except (OSError, ValueError) as problem:
        raise InputError("no-path", f"it is no usable path: {problem}", where=str(path)[:200]) from None
    if not has_folder:
        raise InputError("no-folder", "the folder to write to does not exist", where=str(path.parent))
    if is_folder:
        raise InputError("is-folder", "there is a folder of that name", where=str(path), fits="the path of a file")


def check_writable(folder: Path) -> None:
    """Whether files can be made in a folder: permissions, a read-only mount and a full disk all show when one is.

    Raises:
        InputError: `not-writable`.
    """
    try:
        with tempfile.NamedTemporaryFile(prefix=".ldmkit-", dir=folder):
            pass
    except OSError as problem:
        what = f"no file can be made in the folder: {problem.strerror or problem}"
        raise InputError("not-writable", what, where=str(folder), fits="a folder that you may write to") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well, and is removed when not.

    Raises:
        InputError: `no-path`, `no-folder`, `is-folder`.
        RunError: `cannot-write`: no permission, a full disk.
    """
    with _beside(path) as temporary:
        yield temporary
        _complete(temporary)
        temporary.replace(path)
        on_disk(path.parent)


def write_new(
    path: Path, write: Callable[[Path], object], *, overwrite: bool = False, first: int | None = None
) -> Path:
    """Write a file that replaces none, and say where it is: of `name.png`, `name-1.png`, `name-2.png` ... the first
    that is free at the moment of writing, also when other processes write there.

    Args:
        write: fills the temporary path that it is given.
        overwrite: whatever has the name is replaced instead.
        first: the names start with this number: `name-{first}.png` ...

    Raises:
        InputError, RunError: as `replacing`.
    """
    named = path if first is None else numbered(path, first)
    if overwrite:
        with replacing(named) as temporary:
            write(temporary)
        return named
    with _beside(path) as temporary:
        write(temporary)
        _complete(temporary)
        number = first or 0
        while not _claim(temporary, named):
            number += 1
            named = numbered(path, number)
        on_disk(path.parent)
    return named


def numbered(path: Path, number: int) -> Path:
    """`name.png` with a number: `name-3.png`."""
    return path.with_stem(f"{path.stem}-{number}")


def _claim(temporary: Path, path: Path) -> bool:
    """Give a file its name, unless something has it: a link is made whole or not at all, and never over another."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: the name is taken first, and then filled
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        temporary.replace(path)
    return True


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
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


def _complete(temporary: Path) -> None:
    temporary.chmod(0o644)
    on_disk(temporary)


def on_disk(path: Path) -> None:
    """Wait until a file's data, or a folder's list of names, have reached the disk: a rename may outlive neither."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, data: Any) -> None:
    """Atomically, indented, keys in the order given."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
