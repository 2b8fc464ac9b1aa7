"""Rows of text files: CSV in its varieties, and JSON lines."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ldmkit import InputError, suggest
from ldmkit.files.json import parse_json

WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d{1,3})?")

csv.field_size_limit(1 << 24)  # the standard limit of 128 KiB is less than a caption file's


class Manner(NamedTuple):
    """How a CSV file is written.

    Args:
        key: column that has to be there.
        delimiter: between cells.
        quotes: whether cells may stand in double quotes, with those inside doubled.
        strip: leave blanks around cells out.
        boxes: columns whose cells are JSON.
        header: names of the columns, of a file that has no line of them.
    """

    key: str
    delimiter: str = ","
    quotes: bool = True
    strip: bool = False
    boxes: Collection[str] = ()
    header: Sequence[str] | None = None


def json_rows(path: Path, data: bytes) -> Iterator[tuple[str, Any]]:
    """(where, value) of each line that is not blank."""
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if line.strip():
            yield f"{path}:{number}", parse_json(line, f"{path}:{number}", InputError)


def csv_rows(path: Path, text: str, manner: Manner) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, cells by column) of each line behind the header's; empty cells are left out, and a column all of whose
    cells are numbers holds numbers.

    Raises:
        InputError: `metadata-line`: a line that is none of such a file, or has other cells than there are columns;
            columns that stand twice, or the one that has to be there and is not.
    """
    header, rows = _cells(path, text, manner)
    if manner.key not in header or len(set(header)) < len(header):
        what = f"the columns are {header[:8]}"
        fits = f"{manner.key}, text, ... once each, with {_between(manner.delimiter)} between them"
        close = suggest(manner.key, header) if len(header) > 1 else ""
        fits = f"{close}; {fits}" if close.startswith("did") else fits
        raise InputError("metadata-line", what, where=f"{path}:1", fits=fits)
    kinds = [_kind([row[i] for _, row in rows]) if name != manner.key else str for i, name in enumerate(header)]
    for where, row in rows:
        entry: dict[str, Any] = {}
        for name, kind, cell in zip(header, kinds, row, strict=True):
            if cell:
                boxed = name in manner.boxes
                entry[name] = parse_json(cell.encode(), f"{where}: {name}", InputError) if boxed else kind(cell)
        yield where, entry


def _cells(path: Path, text: str, manner: Manner) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The names of the columns, and (where, cells) of each line; blank lines are none."""
    quoting = csv.QUOTE_MINIMAL if manner.quotes else csv.QUOTE_NONE
    reader = csv.reader(
        io.StringIO(text, newline=""), strict=True, delimiter=manner.delimiter, quoting=quoting,
        skipinitialspace=manner.strip,
    )  # fmt: skip
    rows: list[tuple[str, list[str]]] = []
    try:
        header = list(manner.header) if manner.header is not None else next(reader, [])
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if row and len(row) != len(header):
                what = f"{len(row)} cells under {len(header)} columns"
                fits = f"cells with {_between(manner.delimiter)} inside in quotes"
                if other := _other_delimiter(header, manner.delimiter):
                    fits = f"a `table` source with delimiter: {other!r}, which stands in the header"
                raise InputError("metadata-line", what, where=where, fits=fits)
            rows += [(where, [cell.strip() for cell in row] if manner.strip else row)] if row else []
    except csv.Error as problem:
        where = f"{path}:{reader.line_num}"
        fits = "quotes around a whole cell, those inside doubled"
        raise InputError("metadata-line", f"no row of a CSV file: {problem}", where=where, fits=fits) from None
    return [name.strip() for name in header] if manner.strip else header, rows


def _other_delimiter(header: list[str], delimiter: str) -> str | None:
    """What divides a header that was read as one cell, such as the semicolon of a spreadsheet; None: nothing known."""
    return next((d for d in ";\t|," if d != delimiter and len(header) == 1 and d in header[0]), None)


def _between(delimiter: str) -> str:
    return {",": "a comma", "\t": "a tab", ";": "a semicolon"}.get(delimiter, repr(delimiter))


def _kind(cells: Sequence[str]) -> type:
    """A column is one of numbers where all of its cells are; what begins with a zero (007) is text."""
    filled = [cell for cell in cells if cell]
    if filled and all(WHOLE.fullmatch(cell) for cell in filled):
        return int
    return float if filled and all(NUMBER.fullmatch(cell) for cell in filled) else str
