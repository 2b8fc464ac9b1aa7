"""An index of a tar archive's members, for random access."""

from __future__ import annotations

import errno
import os
import tarfile
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from ldmkit import InputError, shown
from ldmkit.files.picture_files import MAX_FILE_BYTES
from ldmkit.files.reading import check_ordinary


class Member(NamedTuple):
    """Bytes [start, start + size) of an archive."""

    archive: Path
    name: str
    start: int
    size: int

    def read(self) -> bytes:
        """Its content.

        Raises:
            InputError: `bad-file`: the archive became shorter, or cannot be read; or it is larger than any picture.
        """
        if self.size > MAX_FILE_BYTES:
            raise InputError("bad-file", f"{self.size} bytes", where=self.place, fits=f"at most {MAX_FILE_BYTES} bytes")
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


class _Header(tarfile.TarInfo):
    """A member's header, as it stands in the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.type in _EXTENSIONS and found.size > MAX_EXTENSION_BYTES):
            raise ValueError(f"a header that claims {found.size} bytes")
        return found


_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
"""Headers whose content is read into memory: long names and the fields of PAX."""

MAX_EXTENSION_BYTES = 1 << 20


def members(path: Path) -> list[Member]:
    """The files in an archive, in its order; folders are left out.

    Raises:
        InputError: `bad-file`: no tar archive, compressed, cut off, damaged; links and sparse files in it. `not-found`,
            `not-a-file`, `unreadable`: there is no ordinary file.
    """
    check_ordinary(path, InputError)
    found: list[Member] = []
    try:
        with tarfile.open(path, "r:", tarinfo=_Header) as archive:
            before = -1
            for info in archive:
                if info.size < 0 or archive.offset <= before:  # a field of PAX may say so
                    raise ValueError(f"the member {info.name!r} leads back")
                before = archive.offset
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    raise _bad(path, f"the member {info.name!r} is no plain file", "files, no links")
                found.append(Member(path, info.name, info.offset_data, info.size))
            end = archive.offset
        _check_end(path, end)
    except InputError:
        raise
    except OSError as problem:
        raise InputError("unreadable", f"cannot be read: {problem.strerror}", where=str(path)) from None
    except Exception as problem:  # of damaged fields, tarfile lets through whatever int(), decode() and zip() raise
        what = f"not a tar archive, or a damaged one: {shown(str(problem), 200)}"
        raise _bad(path, what, "an uncompressed, complete .tar") from None
    return found


def _check_end(path: Path, end: int) -> None:
    """Refuse what follows an archive's end, but for zeros: a damaged header, which the reader takes for the end, and
    archives that were joined as they are (`cat a.tar b.tar`), of which it reads the first."""
    with path.open("rb") as file:
        at: int | None = end
        while (at := _next_data(file, at)) is not None:
            file.seek(at)
            if not (block := file.read(1 << 20)):
                return
            if block.strip(b"\0"):
                at += len(block) - len(block.lstrip(b"\0"))
                if at < end + 512:
                    raise _bad(path, f"damaged at byte {end}", "a complete archive")
                what = f"the archive ends at byte {end}, and more follows at byte {at}"
                raise _bad(path, what, "an archive a file: several that were joined (cat) are listed one by one")
            at += len(block)


def _next_data(file: BinaryIO, at: int) -> int | None:
    """Where the file's next bytes are that are stored, from a place on; None: only a hole, which reads as zeros."""
    try:
        return os.lseek(file.fileno(), at, os.SEEK_DATA)
    except AttributeError:  # this system does not tell
        return at
    except OSError as problem:
        return None if problem.errno == errno.ENXIO else at


def _bad(path: Path, what: str, fits: str) -> InputError:
    return InputError("bad-file", what, where=str(path), fits=fits)
