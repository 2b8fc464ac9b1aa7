"""What is known about the pictures of a folder, from `metadata.jsonl` or `metadata.csv`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ldmkit import InputError, read_file, suggest
from ldmkit_training.data.sources.captions import text_of
from ldmkit_training.data.sources.finding import Listing, normal
from ldmkit_training.data.sources.rows import Manner, csv_rows, json_rows

NAMES = ("metadata.jsonl", "metadata.csv")
"""Files that are read, in the data folder or in those below; each is about the pictures of its own folder."""

UNREAD = ("metadata.parquet", "metadata.json", "metadata.tsv", "metadata.arrow", "meta_cap.json", "meta_lat.json")
"""Files in which other programs keep the same."""

MAX_BYTES = 2**31
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
    manner = Manner("file_name", boxes=boxes)
    rows = csv_rows(path, text_of(data, str(path), encoding), manner) if csv_file else json_rows(path, data)
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


def _close(name: str, pictures: Sequence[str], inside: str) -> str:
    hint = suggest(name, pictures) if len(pictures) <= 10_000 else ""
    at = "the folder" if inside == "." else f"{inside!r}, where the file is"
    return hint if hint.startswith("did") else f"a path relative to {at}"
