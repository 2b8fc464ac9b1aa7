"""Pictures that a table names: CSV, TSV or JSON lines, wherever the pictures lie."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ldmkit import Example, Geometry, InputError, read_file, suggest
from ldmkit_training.data.sources.captions import Encoding, text_of
from ldmkit_training.data.sources.conventions import check_columns
from ldmkit_training.data.sources.finding import normal
from ldmkit_training.data.sources.metadata import MAX_BYTES
from ldmkit_training.data.sources.records import (
    FileData,
    Record,
    Records,
    first_few,
    missing_notes,
    write_example_image,
)
from ldmkit_training.data.sources.rows import Manner, csv_rows, json_rows

DELIMITERS = {".csv": ",", ".tsv": "\t"}


class TableData(FileData):
    """Part `table`: a row for each picture, of a CSV or TSV file, or a JSON object a line.

    Args:
        file: .csv, .tsv or .jsonl; of any other ending it is CSV where `delimiter` is said.
        picture: the column with the pictures' paths.
        folder: that the paths start from; null: the file's own. It is not searched: what no row names is not read.
        columns: column -> name of the input that it is; null: all but the pictures' are inputs of their names.
        delimiter: one character between cells; null: by the file's ending.
        quotes: whether cells may stand in double quotes, those inside doubled.
        strip: leave blanks around cells out.
        header: names of the columns, where the file has no line of them.
        encoding: of the file.
        rows: what several rows of one picture are: an error (one), or alternatives (captions), of which one is drawn
            whenever the picture is used; inputs of which not all rows say the same are then alternatives.
        choose: names of inputs that may be lists of alternatives, as in `folder`.
        boxes: names of inputs that hold boxes, as in `folder`; as JSON in a cell.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example({"file": "known.csv"}),
        Example({"file": "known.tsv", "picture": "path", "columns": {"words": "text"}}),
    )

    file: str = Field(min_length=1)
    picture: str = Field(default="file_name", min_length=1)
    folder: str | None = None
    columns: dict[str, str] | None = None
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    quotes: bool = True
    strip: bool = False
    header: tuple[str, ...] | None = None
    encoding: Encoding = "utf-8"
    rows: Literal["one", "captions"] = "one"
    choose: tuple[str, ...] = ("text", "caption")
    boxes: tuple[str, ...] = ("layout",)

    @model_validator(mode="after")
    def _consistent(self) -> TableData:
        check_columns(self.columns)
        if self.columns is not None and self.picture in self.columns:
            raise ValueError(f"the column {self.picture!r} is the picture, and no input")
        if self.delimiter in ('"', "\n", "\r"):
            raise ValueError(f"delimiter {self.delimiter!r} cannot stand between cells")
        return self

    def open(self, folder: Path) -> Records:
        path = folder / self.file
        root = path.parent if self.folder is None else folder / self.folder
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        absent: list[str] = []
        for where, entry in self._entries(path):
            name, inputs = self._row(where, entry)
            if name in found:
                found[name] = (found[name][0], self._joined(where, found[name], inputs))
            elif not (root / name).is_file():
                absent.append(f"{where.removeprefix(str(path.parent)).lstrip(os.sep)} {name}")
            else:
                found[name] = (where, inputs)
        if not found:
            what = f"none of the {len(absent)} pictures that its rows name is there: {first_few(absent)}"
            raise InputError(
                "no-samples", what, where=str(path), fits=f"paths that start from {root}, or another `folder`"
            )
        notes = missing_notes(absent, "row(s) name no file", self.missing, str(path))
        keys = list(dict.fromkeys(key for _, inputs in found.values() for key in inputs))
        for key in keys:
            without = [name for name, (_, inputs) in found.items() if key not in inputs]
            notes += missing_notes(without, f"picture(s) have no {key!r}", self.missing, str(path))
        geometry: dict[str, Geometry] = {key: "boxes" if key in self.boxes else "none" for key in keys}
        lists = {key for _, inputs in found.values() for key in inputs if isinstance(inputs[key], list)}
        choices = lists - set(self.boxes) if self.rows == "captions" else set(self.choose) & set(keys)
        records = [Record(name, root / name, inputs, base=root) for name, (_, inputs) in found.items()]
        return Records(records, geometry, self.background, notes, choices=frozenset(choices))

    def _entries(self, path: Path) -> list[tuple[str, Any]]:
        data, ending = read_file(path, MAX_BYTES, InputError), path.suffix.lower()
        if ending in (".jsonl", ".ndjson") and self.delimiter is None:
            return list(json_rows(path, data))
        delimiter = self.delimiter or DELIMITERS.get(ending)
        if delimiter is None:
            fits = ".csv, .tsv or .jsonl; or `delimiter`, of a file of cells"
            raise InputError("metadata-format", f"a {ending or 'file'} is not read", where=str(path), fits=fits)
        original = {new: name for name, new in (self.columns or {}).items()}
        boxes = [original.get(name, name) for name in self.boxes]
        manner = Manner(self.picture, delimiter, self.quotes, self.strip, boxes, self.header)
        return list(csv_rows(path, text_of(data, str(path), self.encoding), manner))

    def _row(self, where: str, entry: Any) -> tuple[str, dict[str, Any]]:
        """The picture that a row names, and its inputs."""
        name = entry.get(self.picture) if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            what = f"the row has no {self.picture!r}: {json.dumps(entry, ensure_ascii=False)[:80]}"
            raise InputError("metadata-line", what, where=where, fits="the path of a picture")
        for column in self.columns or ():
            if column not in entry and self.missing == "error":
                what = f"the row has no {column!r}"
                raise InputError(
                    "metadata-line", what, where=where, fits=f"{suggest(column, entry)}; or missing: allow"
                )
        named = {key: key for key in entry if key != self.picture} if self.columns is None else self.columns
        inputs = {new: entry[key] for key, new in named.items() if entry.get(key) is not None}
        return normal(Path(name).as_posix()), inputs

    def _joined(self, where: str, before: tuple[str, Mapping[str, Any]], inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Two rows of one picture as one; several texts are alternatives."""
        if self.rows == "one":
            fits = f"rows: captions, where its rows are alternatives; the first is {before[0]}"
            raise InputError("metadata-line", "the picture of this row had one before", where=where, fits=fits)
        made = dict(before[1])
        for key, value in inputs.items():
            known = made.get(key)
            if isinstance(value, list) or (isinstance(known, list) and key in self.boxes):
                if value != known:
                    what = f"{key!r} is a list, and another one than in {before[0]}"
                    raise InputError("metadata-line", what, where=where, fits="one row a picture")
            elif isinstance(known, list):
                made[key] = [*known, *([value] if value not in known else ())]
            elif known is None or known == value:
                made[key] = value
            else:
                made[key] = [known, value]
        return made

    def write_example(self, folder: Path) -> None:
        delimiter = self.delimiter or DELIMITERS.get(Path(self.file).suffix, ",")
        words = next(iter(self.columns or {"text": "text"}))
        lines = [delimiter.join((self.picture, words))]
        for number in range(3):
            write_example_image(folder / f"{number}.png", number)
            lines.append(delimiter.join((f"{number}.png", f"colour {number}")))
        (folder / self.file).write_text("\n".join(lines) + "\n")
