"""Reading of untrusted files: only regular files, up to a maximum size.

A path may lead to a FIFO, a socket, a terminal, `/dev/zero` or a file in `/proc`; reading one may block, never end, or
have side effects. They are all refused before a byte is read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from ldmkit.errors import LdmkitError, SourceError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}

_ABSENT = (errno.ENOENT, errno.ENOTDIR)

_WAITS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Flags for opening: not even a FIFO that replaces the file after it was checked can block."""


_TRUST = "trust=True (--trust on the command line) if the recipe comes from someone you trust"

_fence: ContextVar[tuple[Path, ...] | None] = ContextVar("fence", default=None)


@contextmanager
def only_within(*folders: Path) -> Iterator[None]:
    """Inside the block this thread can only read files in these folders, after resolving symbolic links."""
    token = _fence.set(tuple(folder.resolve() for folder in folders))
    try:
        yield
    finally:
        _fence.reset(token)


def check_network(what: str, error: type[LdmkitError] = SourceError) -> None:
    """Refuse network access inside `only_within`, because a request would reveal who opens a recipe.

    Raises:
        error: `not-trusted`.
    """
    if _fence.get() is not None:
        raise error("not-trusted", "the recipe refers to the hub", where=what, fits=_TRUST)


def is_within(path: Path, *folders: Path) -> bool:
    """Whether a path is in one of the folders after resolving symbolic links."""
    try:
        real = path.resolve()
        return any(real.is_relative_to(folder.resolve()) for folder in folders)
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL
        return False


def check_ordinary(path: Path, error: type[LdmkitError] = SourceError, *, where: str | None = None) -> os.stat_result:
    """The `stat` result of a regular file, following symbolic links; the file is not opened.

    Raises:
        error: `not-found`, `not-a-file` (a folder, a device ...), `unreadable`; `not-trusted` within `only_within`.
    """
    place = str(path)[:200] if where is None else where
    allowed = _fence.get()
    if allowed is not None and not is_within(path, *allowed):
        what = "the recipe refers to a file outside of its picture's folder"
        raise error("not-trusted", what, where=place, fits=_TRUST)
    try:
        found = path.stat()
    except (OSError, ValueError) as problem:
        raise _failed(problem, place, error) from None
    if not stat.S_ISREG(found.st_mode):
        what = f"it is {_KINDS.get(stat.S_IFMT(found.st_mode), 'not a regular file')}"
        raise error("not-a-file", what, where=place, fits="a regular file")
    return found


def read_file(path: Path, limit: int, error: type[LdmkitError] = SourceError, *, where: str | None = None) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises:
        error: as `check_ordinary`; `too-large`; `not-a-file` if the length differs from the reported size, because
            the file is in `/proc` or changes while it is read.
    """
    place = str(path)[:200] if where is None else where
    check_ordinary(path, error, where=place)
    try:
        handle = os.open(path, os.O_RDONLY | _WAITS)
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if found.st_size > limit:
                raise error("too-large", f"{found.st_size} bytes", where=place, fits=f"at most {limit} bytes")
            data = file.read(found.st_size + 1) if stat.S_ISREG(found.st_mode) else None
    except OSError as problem:
        raise _failed(problem, place, error) from None
    if data is None or len(data) != found.st_size:
        what = f"its length differs from its reported size of {found.st_size} bytes"
        raise error("not-a-file", what, where=place, fits="a regular file that is not being written to")
    return data


def _failed(problem: OSError | ValueError, where: str, error: type[LdmkitError]) -> LdmkitError:
    if isinstance(problem, OSError) and problem.errno in _ABSENT:
        return error("not-found", "no such file", where=where)
    what = f"cannot be read: {getattr(problem, 'strerror', None) or problem}"
    return error("unreadable", what, where=where)
