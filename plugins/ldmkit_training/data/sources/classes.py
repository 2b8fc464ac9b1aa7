"""A folder of pictures for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from ldmkit import Example, Geometry, InputError, suggest
from ldmkit_training.data.sources.conventions import SPLITS, folder_notes
from ldmkit_training.data.sources.finding import listing
from ldmkit_training.data.sources.records import (
    FileData,
    Record,
    Records,
    first_few,
    missing_notes,
    write_example_image,
)


class ClassesData(FileData):
    """Part `classes`: FOLDER/CLASS/**/picture; the input is the class.

    Args:
        folder: of the classes' folders.
        name: of the input.
        classes: the classes in order; null: the folders' names, sorted.
        numbers: the input is the class's position in that order, not its name.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example({"folder": "pictures"}),
        Example({"folder": ".", "classes": ["day", "night"], "numbers": True, "name": "time"}),
    )

    folder: str
    name: str = "label"
    classes: tuple[str, ...] | None = None
    numbers: bool = False

    def open(self, folder: Path) -> Records:
        root = folder / self.folder
        files = listing(root)
        pictures = files.pictures
        loose = [name for name in pictures if "/" not in name]
        if loose:
            what = f"{len(loose)} picture(s) stand in no class's folder: {first_few(loose)}"
            raise InputError("no-class", what, where=str(root), fits="FOLDER/CLASS/picture")
        found = {name: name.split("/")[0] for name in pictures}
        present = sorted(set(found.values()))
        classes = self.classes or tuple(sorted({*present, *files.folders}))  # an empty one has its number too
        if self.classes is None and SPLITS.issuperset(present) and all(name.count("/") > 1 for name in pictures):
            what = f"the folders {first_few(present)} are named like splits, not like classes"
            fits = f"folder: {self.folder}/{present[0]}, or `classes` if they are classes"
            raise InputError("no-class", what, where=str(root), fits=fits)
        for name in present:
            if name not in classes:
                raise InputError(
                    "no-class", f"there is no class {name!r}", where=str(root), fits=suggest(name, classes)
                )
        empty = [name for name in classes if name not in present]
        notes = files.left_out() + (folder_notes(pictures) if self.classes is None else [])
        notes += missing_notes(empty, "class(es) have no pictures", self.missing, str(root))
        notes += _alike(classes)
        labels = {name: number if self.numbers else name for number, name in enumerate(classes)}
        if self.numbers and self.classes is None:
            notes += _renumbered(self.name, classes)
        records = [Record(name, path, {self.name: labels[found[name]]}) for name, path in pictures.items()]
        geometry: dict[str, Geometry] = {self.name: "none"}
        numbering = {self.name: classes} if self.numbers else {}
        return Records(records, geometry, self.background, notes, numbering=numbering)

    def write_example(self, folder: Path) -> None:
        for number, name in enumerate(("day", "night", "day")):
            write_example_image(folder / self.folder / name / f"{number}.png", number)


def _alike(classes: Sequence[str]) -> list[str]:
    """The note that names differ in capitals or spaces alone, as folders do that were copied between systems."""
    first: dict[str, str] = {}
    pairs = [(first[key], name) for name in classes if first.setdefault(key := name.strip().casefold(), name) != name]
    return [f"the classes {one!r} and {other!r} differ in capitals or spaces alone" for one, other in pairs]


def _renumbered(name: str, classes: Sequence[str]) -> list[str]:
    """The note that folders named by numbers have others: sorted as text, 10 stands before 2."""
    if not all(one.isascii() and one.isdigit() for one in classes):
        return []
    other = [f"folder {one!r} is {place}" for place, one in enumerate(classes) if int(one) != place]
    if not other:
        return []
    more = f" and {len(other) - 3} more" if len(other) > 3 else ""
    return [f"{name}: folders' names are sorted as text: {', '.join(other[:3])}{more} (`classes` says an order)"]
