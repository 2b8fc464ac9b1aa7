"""What is known about the pictures of a folder, from `metadata.jsonl` or `metadata.csv`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ldmkit import InputError, read_file, suggest
from ldmkit.files.json import parse_json
from ldmkit_training.data.sources.captions import text_of
from ldmkit_training.data.sources.finding import Listing, normal

NAMES = ("metadata.jsonl", "metadata.csv")
"""Files that are read, in the data folder or in those below; each is about the pictures of its own folder."""

UNREAD = ("metadata.parquet", "metadata.json", "metadata.tsv", "metadata.arrow", "meta_cap.json", "meta_lat.json")
"""Files in which other programs keep the same."""

MAX_BYTES = 2**31
WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d{1,3})?")
FITS = (
    'metadata.jsonl: {"file_name": "1.png", "text": "..."}, one object a line; or metadata.csv with a column file_name'
)


def metadata_files(files: Listing, named: str | None) -> list[Path]:
    """The metadata of a folder: the one that is named, or those that are there.

    Raises:
        InputError: `metadata-format`: one of another format; `file-twice`: two in one folder.
    """
    if named is not None:
        path = files.folder / named
        if path.suffix.lower() not in (".jsonl", ".csv"):
            raise InputError("metadata-format", f"a {path.suffix or 'file'} is not read", where=str(path), fits=FITS)
        return [path]
    found: dict[PurePosixPath, Path] = {}
    for name, path in files.others.items():
        if path.name in UNREAD:
            raise InputError("metadata-format", f"{path.name} is not read", where=str(path), fits=FITS)
        if path.name in NAMES:
            if (other := found.get(PurePosixPath(name).parent)) is not None:
                what = f"there is {other.name} too"
                raise InputError("file-twice", what, where=str(path), fits="one of them, or `metadata: NAME`")
            found[PurePosixPath(name).parent] = path
    return list(found.values())


def read_metadata(
    path: Path, files: Listing, boxes: Collection[str] = (), encoding: str = "utf-8"
) -> dict[str, dict[str, Any]]:
    """Picture, relative to the listed folder -> its inputs; what is null or an empty cell is left out.

    Args:
        boxes: columns of CSV files whose cells are JSON.

    Raises:
        InputError: `not-found`, `json-invalid`, `metadata-line`, all with the line's number; `too-large`.
    """
    data = read_file(path, MAX_BYTES, InputError)
    csv_file = path.suffix.lower() == ".csv"
    rows = _csv_rows(path, text_of(data, str(path), encoding), boxes) if csv_file else _json_rows(path, data)
    inside = path.parent.relative_to(files.folder) if path.parent.is_relative_to(files.folder) else Path()
    found: dict[str, dict[str, Any]] = {}
    for where, entry in rows:
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise InputError("metadata-line", "the line names no file", where=where, fits=FITS)
        name = normal((inside / name).as_posix())
        if name not in files.pictures:
            fits = _close(name, list(files.pictures), str(inside))
            raise InputError("metadata-line", f"no picture {name!r}", where=where, fits=fits)
        if name in found:
            raise InputError("metadata-line", f"the picture {name!r} stands here for the second time", where=where)
        found[name] = {key: value for key, value in entry.items() if key != "file_name" and value is not None}
    return found


def _json_rows(path: Path, data: bytes) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if line.strip():
            yield f"{path}:{number}", parse_json(line, f"{path}:{number}", InputError)


def _csv_rows(path: Path, text: str, boxes: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[str, list[str]]] = []
    try:
        header = next(reader, [])
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if row and len(row) != len(header):
                what = f"{len(row)} cells under {len(header)} columns"
                raise InputError("metadata-line", what, where=where, fits="cells with a comma in quotes")
            rows += [(where, row)] if row else []
    except csv.Error as problem:
        where = f"{path}:{reader.line_num}"
        raise InputError("metadata-line", f"no row of a CSV file: {problem}", where=where) from None
    if "file_name" not in header or len(set(header)) < len(header):
        what = f"the columns are {header[:8]}"
        raise InputError("metadata-line", what, where=f"{path}:1", fits="file_name, text, ... once each, with commas")
    kinds = [_kind([row[i] for _, row in rows]) if name != "file_name" else str for i, name in enumerate(header)]
    for where, row in rows:
        entry: dict[str, Any] = {}
        for name, kind, cell in zip(header, kinds, row, strict=True):
            if cell:
                entry[name] = parse_json(cell.encode(), f"{where}: {name}", InputError) if name in boxes else kind(cell)
        yield where, entry


def _kind(cells: Sequence[str]) -> type:
    """A column is one of numbers where all of its cells are; what begins with a zero (007) is text."""
    filled = [cell for cell in cells if cell]
    if filled and all(WHOLE.fullmatch(cell) for cell in filled):
        return int
    return float if filled and all(NUMBER.fullmatch(cell) for cell in filled) else str


def _close(name: str, pictures: Sequence[str], inside: str) -> str:
    hint = suggest(name, pictures) if len(pictures) <= 10_000 else ""
    at = "the folder" if inside == "." else f"{inside!r}, where the file is"
    return hint if hint.startswith("did") else f"a path relative to {at}"
