"""Captions in files beside their pictures: `1.txt` for `1.png`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from ldmkit import InputError, read_file
from ldmkit_training.data.sources.finding import Listing, stem

MAX_BYTES = 1 << 20
"""Of a caption file."""

YOLO = re.compile(r"\d+(\s+-?\d*\.?\d+(e-?\d+)?){4,}")
"""A line of the files that YOLO's tools keep beside pictures, with the ending of captions."""

Lines = Literal["one", "each", "first", "whole"]
"""What several lines of a caption file are: an error; captions each, of which one is drawn whenever the picture is
used; all but the first left out; one caption."""


class Sidecars(NamedTuple):
    """Captions by picture.

    Args:
        captions: of each picture that has one: one or several, or what is wrong with its file.
        missing, empty: pictures without a file, and with one that holds nothing.
        alone: caption files without a picture.
        cut: files of which only the first line is read.
    """

    captions: dict[str, list[str] | InputError]
    missing: list[str]
    empty: list[str]
    alone: list[str]
    cut: list[str]


def read_sidecars(files: Listing, names: Sequence[str], ending: str, lines: Lines) -> Sidecars:
    """The captions beside some pictures of a folder.

    A caption has its picture's name with another ending (`1.txt`), or behind its own (`1.png.txt`).

    Raises:
        InputError: `file-twice`: a caption that could be of two pictures, or two captions of one.
    """
    found: dict[str, Path] = {}
    for name, path in files.others.items():
        if name.lower().endswith(ending.lower()):
            key = name[: -len(ending)]
            if key in found:
                raise InputError("file-twice", f"there is {found[key].name} too", where=str(path), fits="one of them")
            found[key] = path
    made = Sidecars({}, [], [], [], [])
    owner: dict[str, str] = {}
    for name in names:
        key = name if name in found else stem(name)
        if key not in found:
            made.missing.append(name)
            continue
        if key in owner:
            what = f"it could be the caption of {owner[key]!r} and of {name!r}"
            raise InputError("file-twice", what, where=str(found[key]), fits="pictures with names of their own")
        owner[key] = name
        try:
            captions = _captions(found[key], lines, made.cut, name)
        except InputError as problem:
            made.captions[name] = problem
            continue
        if captions:
            made.captions[name] = captions
        else:
            made.empty.append(name)
    made.alone.extend(PurePosixPath(key + ending).as_posix() for key in found if key not in owner)
    return made


def _captions(path: Path, lines: Lines, cut: list[str], name: str) -> list[str]:
    data = read_file(path, MAX_BYTES, InputError)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        kind = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding (Latin-1, say)"
        raise InputError("bad-file", f"not UTF-8 text, but {kind}", where=str(path), fits="UTF-8") from None
    if "\0" in text:
        raise InputError("bad-file", "a NUL character in a text", where=str(path), fits="UTF-8 text")
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    listed = [line.strip() for line in plain.split("\n") if line.strip()]
    if listed and all(YOLO.fullmatch(line) for line in listed):
        what = f"{listed[0][:60]!r} is no caption: a class and a box or an outline, as YOLO writes them"
        raise InputError("bad-file", what, where=str(path), fits="texts; or boxes in metadata.jsonl or COCO's format")
    if len(listed) <= 1 or lines == "each":
        return listed
    if lines == "whole":
        return [plain.strip()]
    if lines == "first":
        cut.append(name)
        return listed[:1]
    fits = "lines: each (one of them is drawn whenever the picture is used), first, or whole"
    raise InputError("bad-file", f"{len(listed)} lines of captions", where=str(path), fits=fits)
