"""A folder of pictures, with what is known about them in `metadata.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ldmkit.data import Geometry
from ldmkit.errors import InputError, suggest
from ldmkit.examples import Example
from ldmkit.files import read_file
from ldmkit.jsonio import parse_json
from ldmkit_training.data.records import FileData, Record, Records, draw, lacking, left_out, normal, pictures_in

METADATA = "metadata.jsonl"
MAX_BYTES = 2 * 2**30


class FolderData(FileData):
    """Part `folder`: every picture in a folder and below.

    Args:
        folder: of the pictures.
        metadata: a file in it with one JSON object a line: `file_name`, and any other keys, which become inputs of
            these names (`text`, `caption`, `label` ...). Null: `metadata.jsonl` where there is one.
        boxes: names of inputs that hold boxes: [{"label": ..., "box": [x0, y0, x1, y1]}], relative to the picture.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example({"folder": "pictures"}),)

    folder: str
    metadata: str | None = None
    boxes: tuple[str, ...] = ("layout",)

    def open(self, folder: Path) -> Records:
        root = folder / self.folder
        pictures = pictures_in(root)
        if self.metadata is None and not (root / METADATA).is_file():
            if (root / "metadata.csv").is_file():
                what = "captions in metadata.csv are not read"
                raise InputError("metadata-csv", what, where=str(root), fits=f"{METADATA}: one JSON object a line")
            alone = [Record(name, path, {}) for name, path in pictures.items()]
            return Records(alone, {}, self.background, left_out(root, pictures))
        source = root / (self.metadata or METADATA)
        known = read_metadata(source, pictures)
        keys = list(dict.fromkeys(key for inputs in known.values() for key in inputs))
        notes = left_out(root, pictures)
        notes += lacking([n for n in pictures if n not in known], "picture(s) have no line", self.missing, str(source))
        for key in keys:
            without = [name for name, inputs in known.items() if key not in inputs]
            notes += lacking(without, f"line(s) have no {key!r}", self.missing, str(source))
        geometry: dict[str, Geometry] = {key: "boxes" if key in self.boxes else "none" for key in keys}
        records = [Record(name, path, known.get(name, {})) for name, path in pictures.items()]
        return Records(records, geometry, self.background, notes)

    def write_example(self, folder: Path) -> None:
        box = {"label": "dot", "box": [0.25, 0.25, 0.75, 1]}
        lines = []
        for number in range(3):
            draw(folder / self.folder / f"{number}.png", number)
            lines.append({"file_name": f"{number}.png", "text": f"colour {number}", "layout": [box] * number})
        (folder / self.folder / METADATA).write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def read_metadata(path: Path, pictures: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Picture -> its inputs; keys that are null are left out.

    Raises:
        InputError: those of `read_file`; `json-invalid`, `metadata-line`, with the line's number.
    """
    lines = read_file(path, MAX_BYTES, InputError).removeprefix(b"\xef\xbb\xbf").splitlines()
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        entry = parse_json(line, where, InputError)
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            fits = '{"file_name": "1.png", "text": "..."}'
            raise InputError("metadata-line", "the line names no file", where=where, fits=fits)
        name = normal(name)
        if name not in pictures:
            raise InputError("metadata-line", f"no picture {name!r}", where=where, fits=_close(name, list(pictures)))
        if name in found:
            raise InputError("metadata-line", f"the picture {name!r} stands here for the second time", where=where)
        found[name] = {key: value for key, value in entry.items() if key != "file_name" and value is not None}
    return found


def _close(name: str, pictures: Sequence[str]) -> str:
    hint = suggest(name, pictures) if len(pictures) <= 10_000 else ""
    return hint if hint.startswith("did") else "a path relative to the folder"
