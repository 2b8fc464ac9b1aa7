"""A source of data as a third party would write it, and one for each promise that breaks it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from ldmkit import Data, Dataset, Example, InputError, Sample
from ldmkit.contracts.data import Geometry

GREYS = "greys.txt"


class Greys(Dataset):
    """One grey picture a line of a text file, read when it is asked for."""

    geometry: Mapping[str, Geometry] = {"level": "none", "layout": "boxes", "map": "map"}

    def __init__(self, path: Path):
        try:
            self.path, self.count, stat = path, len(path.read_text(encoding="utf-8").splitlines()), path.stat()
        except OSError as problem:
            raise InputError("not-found", f"cannot be read: {problem.strerror}", where=str(path)) from None
        self.stamp = f"{path.name} {stat.st_size} {stat.st_mtime_ns}"

    def __len__(self) -> int:
        return self.count

    def id(self, index: int) -> str:
        return f"line {index}"

    def level(self, index: int) -> int:
        word = self.path.read_text().splitlines()[index]
        if not word.isdecimal() or int(word) > 255:
            raise InputError("bad-file", f"{word!r} is no grey", where=f"{self.path}:{index + 1}", fits="0 to 255")
        return int(word)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.id(index), np.full((4, 6, 3), self.level(index), dtype=np.uint8), self.inputs(index))

    def inputs(self, index: int) -> dict[str, Any]:
        labels = np.zeros((4, 6), dtype=np.uint8)
        return {"level": self.level(index), "layout": [{"label": "all", "box": [0, 0, 1, 1]}], "map": labels}

    @property
    def fingerprint(self) -> str:
        return self.stamp


class GreyData(Data):
    """Grey pictures by their levels in a file."""

    examples: ClassVar[tuple[Example, ...]] = (Example({"file": GREYS}),)
    dataset: ClassVar[type[Greys]] = Greys

    file: str

    def open(self, folder: Path) -> Dataset:
        return self.dataset(folder / self.file)

    def write_example(self, folder: Path) -> None:
        (folder / self.file).write_text("\n".join(str(50 * i) for i in range(4)))


BROKEN: dict[str, type[Data]] = {}
MORE: list[tuple[str, type[Data]]] = []


def breaks(name: str) -> Any:
    """Register a broken source, or a dataset that makes one, for a check."""

    def register(cls: Any) -> Any:
        made = (
            cls
            if issubclass(cls, Data)
            else type(f"{cls.__name__}Data", (GreyData,), {"dataset": cls, "__module__": __name__})
        )
        made.__doc__ = cls.__doc__
        if name in BROKEN:
            MORE.append((name, made))
        else:
            BROKEN[name] = made
        return cls

    return register


@breaks("opens")
class Nothing(Greys):
    """Has no samples."""

    def __len__(self) -> int:
        return 0


@breaks("opens")
class AList(GreyData):
    """Opens as a list."""

    def open(self, folder: Path) -> Any:
        return [*super().open(folder)]  # type: ignore[misc]


@breaks("ids")
class AllAlike(Greys):
    """All its samples have one id."""

    def id(self, index: int) -> str:
        return "grey"


@breaks("ids")
class OtherId(Greys):
    """Its samples have other ids than it says."""

    def __getitem__(self, index: int) -> Sample:
        found = super().__getitem__(index)
        return Sample(f"{found.id}!", found.image, found.inputs)


@breaks("stable")
class Augmented(Greys):
    """Brightens pictures at random."""

    def __getitem__(self, index: int) -> Sample:
        found = super().__getitem__(index)
        return Sample(found.id, found.image + np.uint8(np.random.default_rng().integers(1, 200)), found.inputs)


@breaks("image")
class Floats(Greys):
    """Gives floating numbers."""

    def __getitem__(self, index: int) -> Sample:
        found = super().__getitem__(index)
        return Sample(found.id, found.image / 255, found.inputs)


@breaks("image")
class OneChannel(Greys):
    """Gives grey pictures as they are."""

    def __getitem__(self, index: int) -> Sample:
        found = super().__getitem__(index)
        return Sample(found.id, found.image[..., 0], found.inputs)


@breaks("geometry")
class Undeclared(Greys):
    """Has an input that it does not declare."""

    geometry: Mapping[str, Geometry] = {"level": "none"}


@breaks("geometry")
class PixelBoxes(Greys):
    """Its boxes are in pixels."""

    def inputs(self, index: int) -> dict[str, Any]:
        return {**super().inputs(index), "layout": [{"label": "all", "box": [0, 0, 6, 4]}]}


@breaks("geometry")
class SmallMap(Greys):
    """Its map is smaller than its picture."""

    def inputs(self, index: int) -> dict[str, Any]:
        return {**super().inputs(index), "map": np.zeros((2, 3), dtype=np.uint8)}


@breaks("inputs")
class Forgetful(Greys):
    """Knows less without its picture."""

    def inputs(self, index: int) -> dict[str, Any]:
        return {}

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.id(index), np.zeros((4, 6, 3), dtype=np.uint8), Greys.inputs(self, index))


@breaks("plain-inputs")
class DrawnInput(Greys):
    """Gives a picture as it has drawn it."""

    geometry: Mapping[str, Geometry] = {**Greys.geometry, "hint": "none"}

    def inputs(self, index: int) -> dict[str, Any]:
        return {**super().inputs(index), "hint": Image.new("RGB", (6, 4))}


@breaks("fingerprint")
class ByCount(Greys):
    """Its fingerprint is how many samples there are."""

    @property
    def fingerprint(self) -> str:
        return str(self.count)


@breaks("fingerprint")
class EveryTimeAnew(Greys):
    """Its fingerprint is a random number."""

    @property
    def fingerprint(self) -> str:
        return str(np.random.default_rng().random())


@breaks("fingerprint")
class ByName(Greys):
    """Its fingerprint is the names of its samples, which stay where their pictures are exchanged."""

    @property
    def fingerprint(self) -> str:
        return "\n".join(self.id(index) for index in range(len(self)))


@breaks("no-traces")
class KeepsIndex(Greys):
    """Writes an index beside the data."""

    def __init__(self, path: Path):
        super().__init__(path)
        path.with_suffix(".index").write_text(str(self.count))


@breaks("no-traces")
class GlobalDraw(Greys):
    """Draws from the global generator."""

    def id(self, index: int) -> str:
        random.random()
        return super().id(index)


@breaks("pickles")
class OpenFile(Greys):
    """Keeps its file open."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.file = path.open(encoding="utf-8")


@breaks("threads")
class OnePlace(Greys):
    """Keeps its place in an attribute."""

    def level(self, index: int) -> int:
        import time

        self.place = index
        time.sleep(0.002)
        return super().level(self.place)


@breaks("missing-files")
class SystemError_(GreyData):
    """Lets the system's error out."""

    def open(self, folder: Path) -> Dataset:
        (folder / self.file).read_text()
        return super().open(folder)


@breaks("missing-files")
class MakesDo(GreyData):
    """Takes an absent file for an empty one."""

    def open(self, folder: Path) -> Dataset:
        (folder / self.file).touch()
        return super().open(folder)


@breaks("damaged-files")
class TrustsLines(Greys):
    """Expects four lines, whatever there is."""

    def level(self, index: int) -> int:
        return int(self.path.read_text().splitlines()[index])

    def __len__(self) -> int:
        return 4
