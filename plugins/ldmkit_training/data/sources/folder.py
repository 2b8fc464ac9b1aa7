"""A folder of pictures, with what is known about them in `metadata.jsonl`, `metadata.csv` or files beside them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from ldmkit import Example, Geometry, InputError, SpecError
from ldmkit_training.data.sources.captions import Encoding, Lines
from ldmkit_training.data.sources.conventions import Repeated, folder_notes, repeated_folders
from ldmkit_training.data.sources.finding import Listing, listing, normal
from ldmkit_training.data.sources.metadata import NAMES, metadata_files, read_metadata
from ldmkit_training.data.sources.records import (
    FileData,
    Record,
    Records,
    first_few,
    missing_notes,
    write_example_image,
)
from ldmkit_training.data.sources.sidecars import Sidecars, read_sidecars

CAPTION = "text"
"""The input that caption files are."""


class FolderData(FileData):
    """Part `folder`: every picture in a folder and below.

    Args:
        folder: of the pictures.
        metadata: a file in it, .jsonl with one JSON object a line or .csv: `file_name`, and any other keys, which
            become inputs of these names (`text`, `caption`, `label` ...). Null: every `metadata.jsonl` and
            `metadata.csv` in it and below, each about the pictures of its own folder.
        captions: ending of caption files beside the pictures (.txt, .caption), which become the input `text`; null:
            such files are not read.
        lines: what several lines of a caption file are: an error (one), a caption each, of which one is drawn whenever
            the picture is used, the first alone, or one caption (whole).
        encoding: of caption files and CSV.
        caption: text of pictures that have no caption otherwise, such as "a photo of a dog" for a folder of dogs.
        folders: `kohya` reads what the names of the folders in this one say: each picture in `10_sks dog` is used ten
            times in an epoch, and the text of those without a caption is "sks dog".
        choose: names of inputs that may be lists of alternatives, of which one is drawn whenever the picture is used.
        boxes: names of inputs that hold boxes: [{"label": ..., "box": [x0, y0, x1, y1]}], relative to the picture.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example({"folder": "pictures"}),)

    folder: str
    metadata: str | None = None
    captions: str | None = Field(default=None, pattern=r"^\.[A-Za-z0-9_.-]+$")
    lines: Lines = "one"
    encoding: Encoding = "utf-8"
    caption: str | None = Field(default=None, min_length=1)
    folders: Literal["plain", "kohya"] = "plain"
    choose: tuple[str, ...] = (CAPTION, "caption")
    boxes: tuple[str, ...] = ("layout",)

    @model_validator(mode="after")
    def _consistent(self) -> FolderData:
        if twice := set(self.choose) & set(self.boxes):
            raise ValueError(f"{min(twice)!r} holds either boxes or alternatives")
        if self.folders == "kohya" and self.caption is not None:
            raise ValueError("the caption of pictures without one is either `caption` or their folder's name")
        return self

    def open(self, folder: Path) -> Records:
        root = folder / self.folder
        files = listing(root)
        rows = self._rows(files)
        beside = rows.named(files) - rows.inputs.keys()
        names = [name for name in files.pictures if name not in beside]
        notes = files.left_out(() if self.captions is None else (self.captions.lower(),))
        if beside:
            notes.append(f"{len(beside)} picture(s) are inputs of others, not samples: {first_few(sorted(beside))}")
        said = self._words(names, str(root))
        repeated = repeated_folders(names, str(root)) if self.folders == "kohya" else {}
        notes += _repeats_notes(repeated, names) if repeated else folder_notes(names)
        notes += self._check_rows(rows, names, said)
        inputs, wrong = dict(rows.inputs), dict[str, InputError]()
        if self.captions is not None:
            texts = read_sidecars(files, names, self.captions, self.lines, self.encoding)
            notes += self._check_texts(texts, rows, names, root, said)
            for name, found in texts.captions.items():
                if isinstance(found, InputError):
                    wrong[name] = found
                else:
                    inputs[name] = {**inputs.get(name, {}), CAPTION: found[0] if len(found) == 1 else found}
        geometry: dict[str, Geometry] = {key: "boxes" if key in self.boxes else "none" for key in rows.keys}
        geometry |= {CAPTION: "none"} if self.captions is not None or said else {}
        for name in said.keys() - wrong.keys():
            inputs[name] = {CAPTION: said[name], **inputs.get(name, {})}
        records = [
            Record(
                name, files.pictures[name], inputs.get(name, {}), base=rows.base.get(name, root), wrong=wrong.get(name)
            )
            for name in names
        ]
        choices = frozenset(self.choose) & geometry.keys()
        mixture = _mixture(repeated, names)
        return Records(records, geometry, self.background, notes, choices=choices, mixture=mixture)

    def _words(self, names: Sequence[str], root: str) -> dict[str, str]:
        """The text of each picture that has no caption of its own."""
        if self.caption is not None:
            return dict.fromkeys(names, self.caption)
        if self.folders == "plain":
            return {}
        known = repeated_folders(names, root)
        return {name: known[name.partition("/")[0]].words for name in names}

    def _rows(self, files: Listing) -> _Rows:
        rows = _Rows(metadata_files(files, self.metadata), {}, {}, [])
        for source in rows.sources:
            for name, inputs in read_metadata(source, files, self.boxes, self.encoding).items():
                if name in rows.inputs:
                    what = f"the picture {name!r} stands in another one too"
                    raise InputError("metadata-line", what, where=str(source), fits="one line a picture")
                kept = {key: value for key, value in inputs.items() if not (value == [] and key in self.choose)}
                rows.inputs[name], rows.base[name] = kept, source.parent
        rows.keys.extend(dict.fromkeys(key for inputs in rows.inputs.values() for key in inputs))
        return rows

    def _check_rows(self, rows: _Rows, names: Sequence[str], said: Mapping[str, str]) -> list[str]:
        if not rows.sources:
            return []
        where = ", ".join(map(str, rows.sources[:2])) + (" ..." if len(rows.sources) > 2 else "")
        without = [name for name in names if name not in rows.inputs]
        if said and set(rows.keys) <= {CAPTION}:
            return _given_notes([name for name in names if CAPTION not in rows.inputs.get(name, {})], where)
        notes = missing_notes(without, "picture(s) have no line", self.missing, where)
        for key in rows.keys:
            if said and key == CAPTION:
                continue
            without = [name for name, inputs in rows.inputs.items() if key not in inputs]
            notes += missing_notes(without, f"line(s) have no {key!r}", self.missing, where)
        return notes

    def _check_texts(
        self, texts: Sidecars, rows: _Rows, names: Sequence[str], root: Path, said: Mapping[str, str]
    ) -> list[str]:
        if CAPTION in rows.keys:
            what = f"{rows.sources[0].name} has the input {CAPTION!r}, and so have the {self.captions} files"
            raise SpecError("input-twice", what, where=str(root), fits="one of them")
        if len(texts.missing) == len(names) and not said:
            what = f"no picture has a {self.captions} file beside it"
            raise InputError("missing-counterpart", what, where=str(root), fits="1.txt for 1.png, with captions: .txt")
        where, ending = str(root), self.captions
        if said:
            notes = _given_notes(sorted([*texts.missing, *texts.empty]), where)
        else:
            notes = missing_notes(texts.missing, f"picture(s) have no {ending}", self.missing, where)
            notes += missing_notes(texts.empty, f"picture(s) have an empty {ending}", self.missing, where)
        if texts.alone:
            notes.append(f"{len(texts.alone)} {ending} without a picture not read: {first_few(texts.alone)}")
        if texts.cut:
            notes.append(f"{len(texts.cut)} {ending} have several lines, and the first is read: {first_few(texts.cut)}")
        return notes

    def write_example(self, folder: Path) -> None:
        box = {"label": "dot", "box": [0.25, 0.25, 0.75, 1]}
        lines = []
        for number in range(3):
            write_example_image(folder / self.folder / f"{number}.png", number)
            lines.append({"file_name": f"{number}.png", "text": f"colour {number}", "layout": [box] * number})
        (folder / self.folder / NAMES[0]).write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _given_notes(names: Sequence[str], where: str) -> list[str]:
    return [f"{where}: {len(names)} picture(s) have no caption, and get one: {first_few(names)}"] if names else []


def _mixture(repeated: Mapping[str, Repeated], names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(pictures, draws) of each folder; their names are sorted, so that a folder's stand together."""
    counts = Counter(name.partition("/")[0] for name in names)
    return tuple((counts[folder], counts[folder] * found.times) for folder, found in repeated.items())


def _repeats_notes(repeated: Mapping[str, Repeated], names: Sequence[str]) -> list[str]:
    counts = Counter(name.partition("/")[0] for name in names)
    whole = sum(counts[folder] * found.times for folder, found in repeated.items())
    each = [f"{folder!r} {counts[folder]} x {found.times}" for folder, found in repeated.items()]
    return [f"repeated as the folders' names say: {', '.join(each)}: {whole} samples an epoch of all"]


class _Rows(NamedTuple):
    """What metadata files say: inputs by picture, the folder that relative paths in them start from, all keys."""

    sources: list[Path]
    inputs: dict[str, dict[str, Any]]
    base: dict[str, Path]
    keys: list[str]

    def named(self, files: Listing) -> set[str]:
        """Pictures of the folder that are named as inputs."""
        found: set[str] = set()
        root = Path(os.path.normpath(files.folder))
        for name, inputs in self.inputs.items():
            for value in inputs.values():
                values = (
                    value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else (value,)
                )
                paths = [Path(os.path.normpath(self.base[name] / one)) for one in values if _may_be_path(one)]
                found |= {normal(path.relative_to(root).as_posix()) for path in paths if path.is_relative_to(root)}
        return found & files.pictures.keys()


def _may_be_path(value: Any) -> bool:
    return isinstance(value, str) and "." in value[-6:] and "\0" not in value
