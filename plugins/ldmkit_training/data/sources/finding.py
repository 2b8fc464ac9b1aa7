"""Lists the files of a data folder: the pictures that are read, and those that are not."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ldmkit import InputError, path_of
from ldmkit.files.picture_files import decoders

PICTURES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".avif",
)  # fmt: skip
"""Endings of files that are taken for pictures; what is in them is told by their contents."""

DECODED = {".heic": "HEIF", ".heif": "HEIF"}
"""Endings that are taken for pictures where the decoder is registered with Pillow."""

LIKE = (
    ".apng", ".avifs", ".jxl", ".jp2", ".j2k", ".jpx", ".psd", ".svg", ".exr", ".hdr", ".tga", ".ico", ".dng", ".cr2",
    ".cr3", ".nef", ".arw", ".raf", ".dds", ".pfm", ".qoi", ".mpo", ".eps", ".xcf", ".pnm",
)  # fmt: skip
"""Endings of other pictures, which are not read, and said so."""

TEXTS = (".txt", ".caption", ".json", ".xml")
"""Endings of files beside pictures, in which other programs keep what is known about each."""

SYSTEMS = frozenset([
    *("__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", "$recycle.bin", "recycler"),
    *("system volume information", "lost+found", "network trash folder", "temporary items", "__pycache__"),
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
])  # fmt: skip
"""Files and folders that systems, storage devices and tools write for themselves, in small letters."""


class Listing(NamedTuple):
    """What stands in a folder and below, by path relative to it, sorted.

    Args:
        pictures: those that are read.
        others: every other file but hidden ones.
        hidden: pictures whose name, or that of a folder above them, begins with a dot.
        systems: pictures in folders that systems write for themselves.
        folders: those directly below, but hidden ones, those of systems, and links.
    """

    folder: Path
    pictures: dict[str, Path]
    others: dict[str, Path]
    hidden: int
    systems: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    def left_out(self, used: Collection[str] = ()) -> list[str]:
        """What is not read, as notes of a source: picture-like files by their endings, texts beside pictures.

        Args:
            used: endings of texts that are read.
        """
        unread, beside = Counter[str](), Counter[str]()
        stems = {stem(name) for name in self.pictures}
        for name in self.others:
            ending = PurePosixPath(name).suffix.lower()
            if ending in (*PICTURES, *DECODED, *LIKE):
                unread[ending] += 1
            elif ending in TEXTS and ending not in used and stem(name) in stems:
                beside[ending] += 1
        notes: list[str] = []
        if unread:
            of = len(self.pictures) + unread.total()
            notes.append(f"{len(self.pictures)} of {of} picture-like files read; not read: {counted(unread)}")
        if self.hidden:
            notes.append(f"{self.hidden} hidden picture(s) not read")
        if self.systems:
            notes.append(f"{len(self.systems)} picture(s) in folders of systems not read, such as {self.systems[0]!r}")
        if beside:
            notes.append(f"{counted(beside)} beside pictures not read")
        return notes


def counted(endings: Counter[str]) -> str:
    """`3 .avif, 2 .jfif`."""
    return ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))


def listing(folder: Path, *, empty: bool = False) -> Listing:
    """The files of a folder and below; links to folders are followed once.

    Args:
        empty: whether it may have no pictures.

    Raises:
        InputError: `not-found`, `no-samples`; `bad-file`: a name that is not UTF-8; `file-twice`: two names that differ
            in how their accents are written alone.
    """
    if not path_of(folder, "folder").is_dir():
        raise InputError("not-found", "there is no such folder", where=str(folder))
    pictures: dict[str, Path] = {}
    others: dict[str, Path] = {}
    endings, hidden, systems = read_endings(), 0, list[str]()
    for path in _walked(folder):
        relative = normal(path.relative_to(folder).as_posix())
        picture = path.suffix.lower() in endings
        if any(part.startswith(".") for part in relative.split("/")):
            hidden += picture
            continue
        if set_aside(relative):
            systems += [relative] if picture else []
            continue
        kept = pictures if picture else others
        if picture:
            _check_name(path, relative)
        if relative in kept:
            what = f"{kept[relative].name!r} has the same name, with its accents written otherwise"
            raise InputError("file-twice", what, where=str(path), fits="names that differ")
        kept[relative] = path
    below = sorted(normal(path.name) for path in folder.iterdir() if _is_folder(path) and not set_aside(path.name))
    found = Listing(
        folder,
        dict(sorted(pictures.items())),
        dict(sorted(others.items())),
        hidden,
        tuple(sorted(systems)),
        tuple(below),
    )
    if not pictures and not empty:
        unread = "; ".join(found.left_out())
        what = "there are no pictures in it" + (f" ({unread})" if unread else "")
        raise InputError("no-samples", what, where=str(folder), fits=", ".join(endings))
    return found


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()  # what a link leads to may be here by itself


def _walked(folder: Path) -> Iterable[Path]:
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link back up, or to a folder that is here already
            folders[:] = []
            continue
        seen.add(real)
        if set_aside(Path(parent).relative_to(folder).as_posix()):
            # what a link in a hidden folder leads to may be there by itself, and would then count as hidden
            folders[:] = [name for name in folders if not (Path(parent) / name).is_symlink()]
        folders.sort(key=lambda name: (set_aside(name), name))
        yield from (Path(parent) / name for name in files)


def set_aside(name: str) -> bool:
    """Whether a relative path is hidden, or a system wrote it for itself: `._1.jpg`, `__MACOSX/1.jpg`, `Thumbs.db`."""
    parts = [part for part in name.split("/") if part not in (".", "..")]
    return any(part.startswith(".") or part.casefold() in SYSTEMS for part in parts)


def read_endings() -> tuple[str, ...]:
    """Endings of the pictures that can be read here."""
    known = decoders()
    missing = ".avif" if "AVIF" not in known else ""
    return (*(e for e in PICTURES if e != missing), *(e for e, decoder in DECODED.items() if decoder in known))


def _check_name(path: Path, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        where = str(path).encode(errors="replace").decode()
        raise InputError("bad-file", "its name is not UTF-8", where=where, fits="another name") from None


def normal(name: str) -> str:
    """A file's name as it is compared: systems write accents in two ways."""
    return unicodedata.normalize("NFC", PurePosixPath(name).as_posix())


def stem(name: str) -> str:
    """A relative path without its ending."""
    return PurePosixPath(name).with_suffix("").as_posix() if PurePosixPath(name).suffix else name
