"""Pictures and the file of the same name that each has beside it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from ldmkit import InputError
from ldmkit_training.data.sources.finding import listing, stem
from ldmkit_training.data.sources.records import Missing, missing_notes


class Pairs(NamedTuple):
    """`found`: name of each picture -> its file, and the one beside it or None; `notes` of the source."""

    found: dict[str, tuple[Path, Path | None]]
    notes: list[str]


def paired(root: Path, beside: Path, partners: Mapping[str, Path], word: str, missing: Missing) -> Pairs:
    """The pictures of a folder with their partners.

    Args:
        beside: folder of the partners, for errors.
        partners: path relative to that folder, without its ending -> file.
        word: what a partner is called.

    Raises:
        InputError: `file-twice`: two pictures that one partner may belong to; `missing-counterpart`.
    """
    taken = set(partners.values())
    files = listing(root)
    pictures = {name: path for name, path in files.pictures.items() if path not in taken}
    twice = next((one for one, other in pairwise(sorted(pictures, key=stem)) if stem(one) == stem(other)), None)
    if twice is not None:
        what = f"another picture has the same name but for its ending: the {word} may belong to either"
        raise InputError("file-twice", what, where=str(pictures[twice]), fits="one picture of each name")
    without = [name for name in pictures if stem(name) not in partners]
    notes = [f"{root}: {note}" for note in files.left_out()]
    notes += missing_notes(without, f"picture(s) have no {word}", missing, str(beside))
    stems = {stem(name) for name in pictures}
    alone = [path.name for key, path in partners.items() if key not in stems]
    notes += missing_notes(alone, f"{word}(s) have no picture", missing, str(root))
    return Pairs({name: (path, partners.get(stem(name))) for name, path in pictures.items()}, notes)


def check_apart(pictures: str, others: str, suffix: str, word: str) -> None:
    """Whether partners can be told from pictures.

    Raises:
        ValueError: one folder, and no suffix.
    """
    if not suffix and Path(pictures) == Path(others):
        raise ValueError(f"pictures and {word}s in one folder need a suffix that tells them apart")
