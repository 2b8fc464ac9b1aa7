"""The zip archives that torch writes: the position of each entry, consistent in all places that state it.

An entry is described in the central directory, before its data (local header), and usually after it (data descriptor).
Programs that trust different ones would read different tensors from the same file, so all must agree, checksums
included.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ldmkit import SourceError
from ldmkit.files.reading import check_ordinary

MAX_DIRECTORY_BYTES = 64 * 2**20
MAX_ENTRIES = 200_000

_LOCAL = struct.Struct("<4s5H3L2H")
_DESCRIPTORS = (struct.Struct("<4sL2Q"), struct.Struct("<4sL2L"))
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CHUNK = 2**20


@dataclass(frozen=True)
class ZipEntry:
    """Position of an uncompressed archive entry in the file, in bytes, and its CRC-32, or None if none is stored."""

    begin: int
    size: int
    crc: int | None


def read_entries(path: Path) -> dict[str, ZipEntry]:
    """The entries of the archive by name.

    Raises:
        SourceError: `torch-invalid`: damaged, compressed, contradictory; `truncated`; `too-large`.
    """
    where = str(path)
    size = check_ordinary(path).st_size
    try:
        with path.open("rb") as file:
            _check_directory(file, size, where)
            with zipfile.ZipFile(file) as archive:
                listed = archive.infolist()
                summed = any(info.CRC for info in listed)  # torch can be told to skip checksums: all are 0 then
                found = {info.filename: _entry(file, info, size, summed, where) for info in listed}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, struct.error, OSError, RuntimeError) as error:
        raise SourceError("torch-invalid", f"damaged archive: {error}", where=where) from None
    except (ValueError, OverflowError, LookupError, MemoryError) as error:  # names, extra fields and counts
        raise SourceError("torch-invalid", f"damaged archive: {type(error).__name__}: {error}", where=where) from None
    if len(found) != len(listed):
        raise SourceError("torch-invalid", "two entries of the archive have the same name", where=where)
    _check_apart(found, where)
    return found


def entry_bytes(path: Path, entry: ZipEntry, name: str) -> bytes:
    """The contents of a small entry.

    Raises:
        SourceError: `truncated`, `torch-invalid`.
    """
    with path.open("rb") as file:
        file.seek(entry.begin)
        data = file.read(entry.size)
    if len(data) < entry.size:
        raise SourceError("truncated", f"entry {name!r} reaches beyond the file's end", where=str(path))
    if entry.crc is not None and zlib.crc32(data) != entry.crc:
        raise SourceError("torch-invalid", f"damaged archive: the CRC-32 of {name!r} differs", where=str(path))
    return data


def checksum(path: Path, entry: ZipEntry, name: str) -> Callable[[], None]:
    """A function that compares an entry with its CRC-32, once, at the first call.

    The function raises SourceError: `truncated`, `checksum`.
    """
    good: list[bool] = []

    def check() -> None:
        if entry.crc is None or good:
            return
        total, left = 0, entry.size
        with path.open("rb", buffering=0) as file:
            file.seek(entry.begin)
            while left > 0 and (data := file.read(min(_CHUNK, left))):
                total, left = zlib.crc32(data, total), left - len(data)
        if left:
            raise SourceError("truncated", f"the file ended while entry {name!r} was read", where=str(path))
        if total != entry.crc:
            what = f"the bytes of entry {name!r} differ from what was written: wrong CRC-32"
            raise SourceError("checksum", what, where=str(path), fits="a new copy of the file")
        good.append(True)

    return check


def _check_directory(file: BinaryIO, size: int, where: str) -> None:
    """Check the size of the central directory before it is read, and its number of entries."""
    tail_size = min(size, 2**16 + _END.size)
    file.seek(size - tail_size)
    tail = file.read(tail_size)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise SourceError("truncated", "the archive's directory is missing: the file is incomplete", where=where)
    _, disk, _, here, count, length, begin, _ = _END.unpack_from(tail, at)
    end = size - tail_size + at
    if 0xFFFF in (disk, here, count) or 0xFFFFFFFF in (length, begin):
        file.seek(max(0, end - _LOCATOR.size))
        mark, _, place, _ = _LOCATOR.unpack(file.read(_LOCATOR.size))
        if mark != b"PK\x06\x07" or place + _END64.size > size:
            raise SourceError("torch-invalid", "damaged archive: its 64-bit directory is missing", where=where)
        file.seek(place)
        mark, _, _, _, disk, _, here, count, length, begin = _END64.unpack(file.read(_END64.size))
        if mark != b"PK\x06\x06":
            raise SourceError("torch-invalid", "damaged archive: its 64-bit directory is missing", where=where)
    if length > MAX_DIRECTORY_BYTES or count > MAX_ENTRIES:
        what = f"a directory of {count} entries in {length} bytes"
        raise SourceError("too-large", what, where=where, fits=f"at most {MAX_ENTRIES} entries")
    if disk or here != count or begin + length > end:
        what = f"damaged archive: a directory of {count} entries and {length} bytes at byte {begin} does not fit"
        raise SourceError("torch-invalid", what, where=where)
    file.seek(begin)
    if file.read(length).count(b"PK\x01\x02") < count:
        raise SourceError("torch-invalid", f"damaged archive: it does not list {count} entries", where=where)


def _entry(file: BinaryIO, info: zipfile.ZipInfo, size: int, summed: bool, where: str) -> ZipEntry:
    name = info.orig_filename
    if "/code/" in name or name.endswith("/constants.pkl"):
        what = "it is a TorchScript program (torch.jit.save), not weights alone"
        raise SourceError(
            "unsupported", what, where=where, fits="torch.jit.load, or the weights alone saved by torch.save"
        )
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        what = f"entry {name!r} is compressed or encrypted"
        raise SourceError("torch-invalid", what, where=where, fits="a file written by torch.save")
    if info.file_size != info.compress_size:
        raise SourceError("torch-invalid", f"entry {name!r} has two sizes but is not compressed", where=where)
    file.seek(info.header_offset)
    mark, _, flags, method, _, _, crc, packed, length, names, extra = _LOCAL.unpack(file.read(_LOCAL.size))
    begin = info.header_offset + _LOCAL.size + names + extra
    if mark != b"PK\x03\x04" or begin + info.file_size > size:
        raise SourceError("truncated", f"entry {name!r} reaches beyond the file's end", where=where)
    later = bool(flags & 8)  # checksum and sizes follow the data
    own = file.read(names)
    fits = own in (name.encode("utf-8", "surrogateescape"), name.encode("cp437", "replace"))
    fits = fits and method == info.compress_type and bool(info.flag_bits & 8) == later
    fits = fits and (crc == info.CRC or (later and crc == 0))
    fits = fits and all(n in (info.file_size, 0xFFFFFFFF) or (later and n == 0) for n in (packed, length))
    if fits and later:
        file.seek(begin + info.file_size)
        fits = _descriptor_fits(file.read(_DESCRIPTORS[0].size), info)
    if not fits:
        what = f"entry {name!r} is described differently in its local header and in the central directory"
        raise SourceError("torch-invalid", what, where=where, fits="a new copy of the file")
    return ZipEntry(begin, info.file_size, info.CRC if summed else None)


def _descriptor_fits(data: bytes, info: zipfile.ZipInfo) -> bool:
    wanted = (b"PK\x07\x08", info.CRC, info.compress_size, info.file_size)
    return any(len(data) >= kind.size and kind.unpack(data[: kind.size]) == wanted for kind in _DESCRIPTORS)


def _check_apart(entries: dict[str, ZipEntry], where: str) -> None:
    """Check that no entries overlap: such an archive would unpack to more than its size."""
    end, before = 0, ""
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].size)):
        if entry.begin < end:
            what = f"damaged archive: entries {before!r} and {name!r} overlap"
            raise SourceError("torch-invalid", what, where=where)
        end, before = entry.begin + entry.size, name
