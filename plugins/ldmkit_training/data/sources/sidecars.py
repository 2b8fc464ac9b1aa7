"""Captions in files beside their pictures: `1.txt` for `1.png`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ldmkit import InputError, read_file
from ldmkit_training.data.sources.captions import MAX_BYTES, Lines, captions_of
from ldmkit_training.data.sources.finding import Listing, stem


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


def read_sidecars(files: Listing, names: Sequence[str], ending: str, lines: Lines, encoding: str = "utf-8") -> Sidecars:
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
            captions, first = captions_of(
                read_file(found[key], MAX_BYTES, InputError), str(found[key]), lines, encoding
            )
            made.cut.extend([name] * first)
        except InputError as problem:
            made.captions[name] = problem
            continue
        if captions:
            made.captions[name] = captions
        else:
            made.empty.append(name)
    made.alone.extend(PurePosixPath(key + ending).as_posix() for key in found if key not in owner)
    return made
