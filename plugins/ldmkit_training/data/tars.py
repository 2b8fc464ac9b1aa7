"""Where the members of a tar archive lie, so that any of them can be read without the rest."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import NamedTuple

from ldmkit.errors import InputError


class Member(NamedTuple):
    """Bytes [start, start + size) of an archive."""

    archive: Path
    name: str
    start: int
    size: int

    def read(self) -> bytes:
        """Its content.

        Raises:
            InputError: `bad-file`: the archive became shorter, or cannot be read.
        """
        try:
            with self.archive.open("rb", buffering=0) as file:
                file.seek(self.start)
                data = file.read(self.size)
        except OSError as problem:
            raise InputError("bad-file", f"cannot be read: {problem.strerror}", where=self.place) from None
        if len(data) < self.size:
            raise InputError("bad-file", "the archive ends inside of it", where=self.place, fits="a complete archive")
        return data

    @property
    def place(self) -> str:
        """What errors call it."""
        return f"{self.archive}: {self.name}"


def members(path: Path) -> list[Member]:
    """The files in an archive, in its order; folders are left out.

    Raises:
        InputError: `bad-file`: no tar archive, compressed, cut off, damaged; links and sparse files in it.
    """
    found: list[Member] = []
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    raise _bad(path, f"the member {info.name!r} is no plain file", "files, no links")
                found.append(Member(path, info.name, info.offset_data, info.size))
            end = archive.offset
        _check_end(path, end)
    except (tarfile.TarError, EOFError, ValueError) as problem:
        if isinstance(problem, InputError):
            raise
        raise _bad(path, f"not a tar archive, or a damaged one: {problem}", "an uncompressed, complete .tar") from None
    except OSError as problem:
        raise InputError("not-found", f"cannot be read: {problem.strerror}", where=str(path)) from None
    return found


def _check_end(path: Path, end: int) -> None:
    # The reader takes a damaged header for the end of the archive, and what follows would be lost in silence.
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(512)
    if block.strip(b"\0"):
        raise _bad(path, f"damaged at byte {end}", "a complete archive")


def _bad(path: Path, what: str, fits: str) -> InputError:
    return InputError("bad-file", what, where=str(path), fits=fits)
