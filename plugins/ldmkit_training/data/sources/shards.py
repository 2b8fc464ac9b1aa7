"""Samples in tar archives, as webdataset lays them out."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from pydantic import Field

from ldmkit import Dataset, Example, Geometry, InputError, Sample
from ldmkit.contracts.arguments import guarded
from ldmkit.files.json import parse_json
from ldmkit.files.picture_files import picture_size
from ldmkit_training.data.identity import file_bytes, joined
from ldmkit_training.data.sources.captions import MAX_BYTES, Lines, captions_of
from ldmkit_training.data.sources.grouping import (
    JSON,
    LABEL,
    TEXT,
    Group,
    Left,
    Names,
    Others,
    Rule,
    grouped,
    picture_ending,
)
from ldmkit_training.data.sources.labels import LabelRule, read_labels
from ldmkit_training.data.sources.records import FileData, check_map, first_few, missing_notes, read_image, stamp
from ldmkit_training.data.sources.tars import Member


class ShardsData(FileData):
    """Part `shards`: the members of a sample share their name up to the first dot of its last part.

    `KEY.jpg` (or any other kind of picture that can be read) is the picture, `KEY.txt` the input `text`, `KEY.cls` the
    input `label` (a number or a name), the keys of `KEY.json` are inputs of their names, and `KEY.NAME.png` is a label
    map, the input NAME. Hidden members, which systems write for themselves, are not read, and counted.

    Args:
        shards: archives, uncompressed; a pattern with * and ?, or a list of files.
        boxes: inputs of the JSON members that hold boxes, as in `folder`.
        maps: names of label maps, and how their values are read.
        choose: inputs of the JSON members that may be lists of alternatives, as in `folder`.
        lines: what several lines of a `KEY.txt` are, as in `folder`.
        ignored: other endings that may be there and are not read.
        names: where the ending of a member's name begins: at the first dot, as webdataset has it, or at the last.
        others: members of other endings are an error, or skipped and counted.
        picture: ending of the pictures, where a sample has several; null: any.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example({"shards": "*.tar"}),
        Example({"shards": ["a.tar", "b.tar"], "maps": {"seg": {"classes": 3}}, "missing": "allow"}),
    )

    shards: str | tuple[str, ...]
    boxes: tuple[str, ...] = ("layout",)
    maps: dict[str, LabelRule] = Field(default_factory=dict)
    choose: tuple[str, ...] = ("text", "caption")
    lines: Lines = "one"
    ignored: tuple[str, ...] = ()
    names: Names = "first-dot"
    others: Others = "error"
    picture: str | None = Field(default=None, pattern=r"^[a-z0-9_.-]+$")

    @property
    def rule(self) -> Rule:
        """How members are read."""
        known = (TEXT, LABEL, JSON, *(f"{name}.png" for name in self.maps))
        return Rule(self.names, self.others, self.picture, known, self.ignored)

    def open(self, folder: Path) -> ShardsDataset:
        paths = self._paths(folder)
        groups: dict[str, Group] = {}
        rule, left = self.rule, Left([], Counter())
        for path, name in zip(paths, _names(paths), strict=True):
            for key, group in grouped(path, rule, left).items():
                groups[f"{name}/{key}"] = group
        where = ", ".join(map(str, paths[:2])) + (" ..." if len(paths) > 2 else "")
        without = [key for key, group in groups.items() if not picture_ending(group, rule.pictures)]
        notes = left.notes(where)
        notes += missing_notes(without, "sample(s) have no picture", self.missing, where)
        groups = {key: group for key, group in groups.items() if picture_ending(group, rule.pictures)}
        others = dict.fromkeys(e for group in groups.values() for e in group if e in rule.known)
        for ending in others:
            lack = [key for key, group in groups.items() if ending not in group]
            notes += missing_notes(lack, f"sample(s) have no .{ending}", self.missing, where)
        notes += self._check_texts(groups, where)
        return ShardsDataset(self, paths, groups, notes)

    def _check_texts(self, groups: Mapping[str, Group], where: str) -> list[str]:
        """Notes of texts that hold nothing, which are taken out of their groups, and of those whose first line is read.

        What is wrong with a text is said when its sample is read.
        """
        empty: dict[str, list[str]] = {TEXT: [], LABEL: []}
        cut: list[str] = []
        for key, group in groups.items():
            for ending in [ending for ending in empty if ending in group]:
                try:
                    found, first = _lines(group[ending], self.lines if ending == TEXT else "whole")
                except InputError:
                    continue
                cut.extend([key] * first)
                if not found:
                    empty[ending].append(key)
                    del group[ending]
        notes = []
        for ending, keys in empty.items():
            notes += missing_notes(keys, f"sample(s) have an empty .{ending}", self.missing, where)
        if cut:
            notes.append(f"{where}: {len(cut)} .txt have several lines, and the first is read: {first_few(cut)}")
        return notes

    def _paths(self, folder: Path) -> list[Path]:
        if not isinstance(self.shards, str):
            return [folder / name for name in self.shards]
        pattern = Path(self.shards)
        root = Path(pattern.anchor) if pattern.is_absolute() else folder
        below = pattern.relative_to(pattern.anchor).as_posix() if pattern.anchor else self.shards
        matches = guarded(lambda: sorted(root.glob(below)), "shards") if pattern.name else []
        found = [path for path in matches if not path.name.startswith(".") or pattern.name.startswith(".")]
        if not found:
            raise InputError(
                "not-found",
                f"no file matches {self.shards!r}",
                where=str(folder),
                fits="a pattern with * and ?, or a list",
            )
        return found

    def write_example(self, folder: Path) -> None:
        picture, labels = io.BytesIO(), io.BytesIO()
        Image.new("RGB", (12, 8), (200, 100, 50)).save(picture, "PNG")
        Image.frombytes("L", (12, 8), bytes(i % 3 for i in range(96))).save(labels, "PNG")
        layout = {"layout": [{"label": "dot", "box": [0.25, 0.25, 0.75, 1]}]}
        for number, name in enumerate(("a", "b")):
            known = {"png": picture.getvalue(), "txt": f"picture {number}".encode(), "cls": str(number).encode()}
            known |= {"json": json.dumps(layout).encode()}
            known |= {f"{key}.png": labels.getvalue() for key in self.maps}
            with tarfile.open(folder / f"{name}.tar", "w") as archive:
                for ending, data in known.items():
                    info = tarfile.TarInfo(f"{number}.{ending}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


def _names(paths: Sequence[Path]) -> list[str]:
    """What ids call the archives: their file names, or as much of their paths as tells them apart."""
    full = [path.resolve() for path in paths]
    if twice := next((path for path, count in Counter(full).items() if count > 1), None):
        raise InputError("file-twice", "the archive is listed twice", where=str(twice), fits="each archive once")
    short = [path.name for path in paths]
    if len(set(short)) == len(short):
        return short
    root = os.path.commonpath([path.parent for path in full])
    return [path.relative_to(root).as_posix() for path in full]


class ShardsDataset(Dataset):
    """Members read where they lie. The keys of JSON members are learned from the first sample that has one."""

    def __init__(
        self, config: ShardsData, paths: Sequence[Path], groups: Mapping[str, Group], notes: Sequence[str]
    ) -> None:
        self.config, self.paths, self.notes = config, paths, tuple(notes)
        self._groups = list(groups.values())
        self._pictures = config.rule.pictures
        self._ids = [f"{key}.{self._member(group).name.rpartition('.')[2]}" for key, group in groups.items()]
        self.geometry = self._geometry()
        self.choices = frozenset(config.choose) & self.geometry.keys()

    def _member(self, group: Group) -> Member:
        found = picture_ending(group, self._pictures)
        assert found is not None
        return group[found]

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, index: int) -> str:
        return self._ids[index]

    def __getitem__(self, index: int) -> Sample:
        member = self._member(self._groups[index])
        image = read_image(member.read(), member.place, self.config.background)
        inputs = self.inputs(index)
        for name in self.config.maps:
            if name in inputs:
                check_map(inputs[name], image, self._groups[index][f"{name}.png"].place)
        return Sample(self._ids[index], image, inputs)

    def inputs(self, index: int) -> dict[str, Any]:
        group = self._groups[index]
        found = self._known(group)
        for name, rule in self.config.maps.items():
            if (member := group.get(f"{name}.png")) is not None:
                found[name] = read_labels(member.read(), member.place, rule)
        return found

    def _known(self, group: Group) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if TEXT in group:
            texts, _ = _lines(group[TEXT], self.config.lines)
            found["text"] = texts[0] if len(texts) == 1 else texts
        if LABEL in group:
            label = _label(group[LABEL])
            found["label"] = int(label) if label.isdecimal() else label
        if JSON in group:
            found |= self._json(group[JSON], found)
        return found

    def known(self, index: int) -> dict[str, Any]:
        return self._known(self._groups[index])

    def picture_size(self, index: int) -> tuple[int, int] | None:
        return picture_size(self._member(self._groups[index]).read())

    def content(self, index: int) -> tuple[bytes, bytes]:
        group, config = self._groups[index], self.config
        known: list[bytes] = []
        files = [f"{config.background}".encode()]
        for ending, member in sorted(group.items()):
            found = file_bytes(member.archive, member.start, member.size)
            (known if ending in (TEXT, LABEL, JSON) else files).append(ending.encode() + b":" + found)
        files += [
            rule.model_dump_json().encode() for name, rule in sorted(config.maps.items()) if f"{name}.png" in group
        ]
        return joined(known), joined(files)

    def base(self, index: int, name: str) -> Path | None:
        return self._member(self._groups[index]).archive.parent

    @property
    def fingerprint(self) -> str:
        text = "\n".join([self.config.model_dump_json(), *(stamp(path) for path in self.paths)])
        return hashlib.sha256(text.encode()).hexdigest()

    def _json(self, member: Member, others: Mapping[str, Any]) -> dict[str, Any]:
        content = _parsed(member)
        for key in content:
            if key in others or key in self.config.maps or (key not in self.geometry):
                what = f"the key {key!r} is another member's input, or not in the first sample's JSON"
                raise InputError("bad-file", what, where=member.place, fits="the same keys in all samples")
        empty = [key for key in content if content[key] is None or (content[key] == [] and key in self.config.choose)]
        return {key: value for key, value in content.items() if key not in empty}

    def _geometry(self) -> dict[str, Geometry]:
        found: dict[str, Geometry] = {}
        for ending, name in ((TEXT, "text"), (LABEL, "label")):
            if any(ending in group for group in self._groups):
                found[name] = "none"
        first = next((group[JSON] for group in self._groups if JSON in group), None)
        for key in () if first is None else _parsed(first):
            found[key] = "boxes" if key in self.config.boxes else "none"
        return found | {n: "map" for n in self.config.maps if any(f"{n}.png" in group for group in self._groups)}


def _lines(member: Member, lines: Lines) -> tuple[list[str], bool]:
    if member.size > MAX_BYTES:
        what = f"{member.size} bytes"
        raise InputError("bad-file", what, where=member.place, fits=f"a text of at most {MAX_BYTES} bytes")
    return captions_of(member.read(), member.place, lines)


def _label(member: Member) -> str:
    (label,), _ = _lines(member, "whole")
    if "\n" in label:
        what = f"{len(label.splitlines())} lines, where one class is expected"
        raise InputError("bad-file", what, where=member.place, fits="a number or a name")
    return label


def _parsed(member: Member) -> dict[str, Any]:
    try:
        content = parse_json(member.read(), member.place, InputError)
    except InputError as problem:
        raise InputError("bad-file", problem.what, where=member.place, fits=problem.fits) from None
    if not isinstance(content, dict):
        raise InputError("bad-file", "no JSON object", where=member.place, fits='{"text": "..."}')
    return content
