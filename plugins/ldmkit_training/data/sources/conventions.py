"""Names of folders that mean something in other programs: splits, and how often a picture is repeated."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ldmkit_training.data.sources.records import first_few

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""Folders that hold parts of a data set."""

REPEATS = re.compile(r"\d+_\S.*")
"""kohya's `10_sks dog`: each picture ten times an epoch."""


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
        return [f"{what} (`concat` has `weights`)"]
    return []
