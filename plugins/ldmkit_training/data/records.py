"""Sources whose pictures and maps are files: what they share."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

from ldmkit.data import Data, Dataset, Geometry, Sample
from ldmkit.errors import InputError
from ldmkit.picture_files import decoders
from ldmkit.pictures import read_levels
from ldmkit_training.data.identity import file_bytes, joined, known_bytes
from ldmkit_training.data.labels import LabelRule, read_labels

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

SHOWN = 3

Colour = tuple[
    Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)]
]
Missing = Literal["error", "allow"]


class FileData(Data):
    """What all sources of files take.

    Args:
        background: RGB colour that transparent pictures are put on; null: they are refused.
        missing: what happens where something has no counterpart (a picture without a caption, a map without a
            picture): an error, or allowed and stated: the sample lacks that input, or what has no picture is left out.
    """

    background: Colour | None = None
    missing: Missing = "error"


class Record(NamedTuple):
    """A sample by its files.

    Args:
        inputs: what is known without reading a file.
        maps: input name -> file of a label map.
        size: (height, width) that the picture must have; None: any.
    """

    id: str
    picture: Path
    inputs: Mapping[str, Any]
    maps: Mapping[str, Path] = {}
    size: tuple[int, int] | None = None


class Records(Dataset):
    """Samples that are files.

    Args:
        rules: how labels in map files are read, by input name.
    """

    def __init__(
        self,
        records: Sequence[Record],
        geometry: Mapping[str, Geometry],
        background: tuple[int, int, int] | None,
        notes: Sequence[str] = (),
        rules: Mapping[str, LabelRule] | None = None,
        numbering: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.records, self.geometry, self.notes = records, geometry, tuple(notes)
        self.numbering = numbering or {}
        self._background, self._rules = background, rules or {}

    def __len__(self) -> int:
        return len(self.records)

    def id(self, index: int) -> str:
        return self.records[index].id

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        image = read_image(record.picture, str(record.picture), self._background)
        if record.size is not None and image.shape[:2] != record.size:
            what = f"the picture is {_size(image.shape)}, its annotations are for {_size(record.size)}"
            raise InputError("bad-file", what, where=str(record.picture), fits="annotations of the upright picture")
        inputs = self.inputs(index)
        for name, path in record.maps.items():
            check_map(inputs[name], image, str(path))
        return Sample(record.id, image, inputs)

    def inputs(self, index: int) -> dict[str, Any]:
        record = self.records[index]
        return {**record.inputs, **{n: read_labels(p, str(p), self._rules[n]) for n, p in record.maps.items()}}

    def known(self, index: int) -> Mapping[str, Any]:
        return self.records[index].inputs

    def content(self, index: int) -> tuple[bytes, bytes]:
        record = self.records[index]
        rules = [f"{self._background}", *(self._rules[name].model_dump_json() for name in record.maps)]
        files = [file_bytes(path) for path in (record.picture, *record.maps.values())]
        return known_bytes(record.inputs), joined([*(rule.encode() for rule in rules), *files])

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self._background}{self._rules}".encode())
        for record in self.records:
            known = json.dumps(record.inputs, sort_keys=True, default=str)
            files = [stamp(path) for path in (record.picture, *record.maps.values())]
            digest.update(f"{record.id}\n{known}\n{files}\n".encode())
        return digest.hexdigest()


def draw(path: Path, number: int, size: tuple[int, int] = (12, 8)) -> None:
    """Write a small picture of one colour, for the examples of the sources."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (40 * number, 255 - 40 * number, 90)).save(path)


def read_image(source: Path | bytes, where: str, background: tuple[int, int, int] | None) -> np.ndarray:
    """A picture file as (H,W,3) uint8.

    Raises:
        InputError: `bad-file`, naming it.
    """
    try:
        return read_levels(source, where, background)
    except InputError as problem:
        fits = problem.fits
        if problem.code == "input.picture-alpha":
            fits = "background: [255, 255, 255], say, in the source's config"
        raise InputError("bad-file", problem.what, where=where, fits=fits) from None


def check_map(labels: np.ndarray, image: np.ndarray, where: str) -> None:
    """A map has one label a pixel of its picture.

    Raises:
        InputError: `bad-file`.
    """
    if labels.shape != image.shape[:2]:
        what = f"the map is {_size(labels.shape)}, its picture {_size(image.shape)}"
        raise InputError("bad-file", what, where=where, fits="one label a pixel of the picture")


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]}"


def pictures_in(folder: Path) -> dict[str, Path]:
    """Path relative to the folder -> file, of every picture in it and below, sorted; hidden ones left out.

    Raises:
        InputError: `not-found`, `no-samples`; `bad-file`: a name that is not UTF-8.
    """
    if not folder.is_dir():
        raise InputError("not-found", "there is no such folder", where=str(folder))
    found: dict[str, Path] = {}
    seen: set[str] = set()
    endings = read_endings()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real in seen:  # a link back up, or to a folder that is here already
            continue
        seen.add(real)
        for name in files:
            path = Path(parent) / name
            if not name.startswith(".") and path.suffix.lower() in endings:
                found[_relative(path, folder)] = path
    if not found:
        unread = "; ".join(left_out(folder, ()))
        what = "there are no pictures in it" + (f" ({unread})" if unread else "")
        raise InputError("no-samples", what, where=str(folder), fits=", ".join(read_endings()))
    return dict(sorted(found.items()))


def read_endings() -> tuple[str, ...]:
    """Endings of the pictures that can be read here."""
    known = decoders()
    missing = ".avif" if "AVIF" not in known else ""
    return (*(e for e in PICTURES if e != missing), *(e for e, decoder in DECODED.items() if decoder in known))


def left_out(folder: Path, read: Collection[str], used: Collection[str] = ()) -> list[str]:
    """What stands in a folder and below and is not read, as notes of a source: picture-like files by their endings,
    texts beside pictures, hidden pictures.

    Args:
        read: the pictures that are read, relative to the folder.
        used: endings of texts that are read.
    """
    unread, hidden, beside = Counter[str](), 0, Counter[str]()
    stems, endings = {stem(name) for name in read}, read_endings()
    for parent, folders, files in os.walk(folder):
        for name in files:
            path, ending = Path(parent) / name, Path(name).suffix.lower()
            relative = normal(path.relative_to(folder).as_posix())
            concealed = any(part.startswith(".") for part in relative.split("/"))
            if concealed:
                hidden += ending in endings
            elif ending in (*PICTURES, *DECODED, *LIKE) and ending not in endings:
                unread[ending] += 1
            elif ending in TEXTS and ending not in used and stem(relative) in stems:
                beside[ending] += 1
        folders.sort()
    notes: list[str] = []
    if unread:
        listed = ", ".join(f"{count} {ending}" for ending, count in sorted(unread.items()))
        notes.append(f"{len(read)} of {len(read) + unread.total()} picture-like files read; not read: {listed}")
    if hidden:
        notes.append(f"{hidden} hidden picture(s) not read")
    if beside:
        listed = ", ".join(f"{count} {ending}" for ending, count in sorted(beside.items()))
        notes.append(f"{listed} beside pictures not read")
    return notes


TEXTS = (".txt", ".caption", ".json")
"""Endings of files beside pictures, in which other programs keep what is known about each."""


def _relative(path: Path, folder: Path) -> str:
    name = normal(path.relative_to(folder).as_posix())
    try:
        name.encode()
    except UnicodeEncodeError:
        where = str(path).encode(errors="replace").decode()
        raise InputError("bad-file", "its name is not UTF-8", where=where, fits="another name") from None
    return name


def normal(name: str) -> str:
    """A file's name as it is compared: systems write accents in two ways."""
    return unicodedata.normalize("NFC", PurePosixPath(name).as_posix())


def stem(name: str) -> str:
    """A relative path without its ending."""
    return PurePosixPath(name).with_suffix("").as_posix() if PurePosixPath(name).suffix else name


def stamp(path: Path) -> str:
    """Name, size and time of a file: text that changes when it does."""
    try:
        info = path.stat()
    except OSError:
        return f"{path.name} missing"
    return f"{path.name} {info.st_size} {info.st_mtime_ns}"


def some(names: Iterable[str]) -> str:
    """The first few of a list, quoted, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(repr(name) for name in listed[:SHOWN]) + more


def lacking(names: Sequence[str], what: str, missing: Missing, where: str) -> list[str]:
    """The note that some samples lack something; an error where that is not allowed.

    Raises:
        InputError: `missing-counterpart`.
    """
    if not names:
        return []
    said = f"{len(names)} {what}: {some(names)}"
    if missing == "error":
        what = f"something has no counterpart: {said}"
        raise InputError("missing-counterpart", what, where=where, fits="missing: allow, or complete data")
    return [f"{where}: {said}"]
