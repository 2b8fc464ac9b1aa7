"""Names of folders and columns: what they mean in other programs, and which inputs they are here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ldmkit import InputError
from ldmkit_training.data.sources.records import first_few

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""Folders that hold parts of a data set."""

MOST_REPEATS = 10_000

REPEATS = re.compile(r"\d+_\S.*")
"""kohya's `10_sks dog`: each picture ten times an epoch."""


class Repeated(NamedTuple):
    """What kohya's scripts read in a folder's name.

    Args:
        times: each of its pictures in an epoch.
        words: the caption of those that have none.
    """

    times: int
    words: str


def check_columns(columns: Mapping[str, str] | None) -> None:
    """Refuse two columns that would be one input.

    Raises:
        ValueError: for a validator to raise.
    """
    names = list((columns or {}).values())
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two columns would both be the input {twice!r}")


def repeated_folders(pictures: Sequence[str], where: str) -> dict[str, Repeated]:
    """First folder of the pictures' names -> what its name says, for folders named like kohya's.

    Raises:
        InputError: `folder-name`: another one; or pictures beside the folders.
    """
    found: dict[str, Repeated] = {}
    for name in pictures:
        folder = name.partition("/")[0] if "/" in name else ""
        if folder in found:
            continue
        number, _, words = folder.partition("_")
        if not REPEATS.fullmatch(folder) or not 1 <= int(number) <= MOST_REPEATS:
            what = f"the folder {folder!r} of {name!r}" if folder else f"{name!r} stands in no folder, and"
            fits = f"folders such as '10_sks dog', 1 to {MOST_REPEATS} times; or folders: plain"
            raise InputError("folder-name", f"{what} does not say how often a picture is used", where=where, fits=fits)
        found[folder] = Repeated(int(number), words.strip())
    return found


def folder_notes(pictures: Iterable[str]) -> list[str]:
    """Notes on what the first folders of pictures' names mean elsewhere, and do not here."""
    first = sorted({name.partition("/")[0] if "/" in name else "" for name in pictures})
    if len(first) > 1 and SPLITS.issuperset(first):
        what = f"the folders {first_few(first)} are named like splits"
        return [f"{what}: the pictures of all are read (`folder` can name one)"]
    if first and all(REPEATS.fullmatch(name) for name in first):
        what = (
            f"the folders {first_few(first)} are named like kohya's: the numbers repeat nothing here, each is read once"
        )
        return [f"{what} (folders: kohya repeats them)"]
    return []
