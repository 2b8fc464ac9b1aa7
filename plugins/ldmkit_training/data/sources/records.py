"""What sources whose pictures and maps are files have in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

from ldmkit import Data, Dataset, Geometry, InputError, Sample
from ldmkit.files.picture_files import picture_size
from ldmkit.files.pictures import read_levels
from ldmkit_training.data.identity import file_bytes, joined, known_bytes
from ldmkit_training.data.sources.labels import LabelRule, read_labels

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
        base: folder that relative paths in inputs start from.
        wrong: why its inputs cannot be read.
    """

    id: str
    picture: Path
    inputs: Mapping[str, Any]
    maps: Mapping[str, Path] = {}
    size: tuple[int, int] | None = None
    base: Path | None = None
    wrong: InputError | None = None

    def checked(self) -> Mapping[str, Any]:
        """Its inputs.

        Raises:
            InputError: `bad-file`.
        """
        if self.wrong is not None:
            raise InputError("bad-file", self.wrong.what, where=self.wrong.where, fits=self.wrong.fits)
        return self.inputs


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
        choices: frozenset[str] = frozenset(),
        mixture: tuple[tuple[int, int], ...] = (),
    ) -> None:
        self.records, self.geometry, self.notes = records, geometry, tuple(notes)
        self.numbering, self.choices, self.mixture = numbering or {}, choices, mixture
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
        return {**record.checked(), **{n: read_labels(p, str(p), self._rules[n]) for n, p in record.maps.items()}}

    def known(self, index: int) -> Mapping[str, Any]:
        return self.records[index].checked()

    def base(self, index: int, name: str) -> Path | None:
        return self.records[index].base

    def picture_size(self, index: int) -> tuple[int, int] | None:
        return picture_size(self.records[index].picture)

    def content(self, index: int) -> tuple[bytes, bytes]:
        record = self.records[index]
        rules = [f"{self._background}", *(self._rules[name].model_dump_json() for name in record.maps)]
        files = [file_bytes(path) for path in (record.picture, *record.maps.values())]
        known = known_bytes(record.inputs) if record.wrong is None else str(record.wrong.what).encode()
        return known, joined([*(rule.encode() for rule in rules), *files])

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self._background}{self._rules}".encode())
        for record in self.records:
            known = json.dumps(record.inputs, sort_keys=True, default=str) + str(record.wrong or "")
            files = [stamp(path) for path in (record.picture, *record.maps.values())]
            digest.update(f"{record.id}\n{known}\n{files}\n".encode())
        return digest.hexdigest()


def write_example_image(path: Path, number: int, size: tuple[int, int] = (12, 8)) -> None:
    """Write a small picture of one colour, for the examples of the sources."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (40 * number, 255 - 40 * number, 90)).save(path)


_TOLD: set[str] = set()
"""Colour spaces that were warned of: once each, whatever the number of pictures."""


def read_image(source: Path | bytes, where: str, background: tuple[int, int, int] | None) -> np.ndarray:
    """A picture file as (H,W,3) uint8.

    Raises:
        InputError: `bad-file`, naming it.
    """
    try:
        return read_levels(source, where, background, _TOLD)
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


def stamp(path: Path) -> str:
    """Name, size and time of a file: text that changes when it does."""
    try:
        info = path.stat()
    except OSError:
        return f"{path.name} missing"
    return f"{path.name} {info.st_size} {info.st_mtime_ns}"


def first_few(names: Iterable[str]) -> str:
    """The first few of a list, quoted, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(repr(name) for name in listed[:SHOWN]) + more


def missing_notes(names: Sequence[str], what: str, missing: Missing, where: str) -> list[str]:
    """The note that some samples lack something; an error where that is not allowed.

    Raises:
        InputError: `missing-counterpart`.
    """
    if not names:
        return []
    said = f"{len(names)} {what}: {first_few(names)}"
    if missing == "error":
        what = f"something has no counterpart: {said}"
        raise InputError("missing-counterpart", what, where=where, fits="missing: allow, or complete data")
    return [f"{where}: {said}"]
