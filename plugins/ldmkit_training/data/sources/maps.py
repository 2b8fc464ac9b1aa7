"""Pictures and their semantic maps: palette or grey files of the same name."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from PIL import Image
from pydantic import Field, model_validator

from ldmkit import Example, Geometry, InputError
from ldmkit_training.data.sources.finding import listing, stem
from ldmkit_training.data.sources.labels import LabelRule
from ldmkit_training.data.sources.pairs import check_apart, paired
from ldmkit_training.data.sources.records import FileData, Record, Records, write_example_image

LOSSY = (".jpg", ".jpeg", ".webp")


class MapsData(FileData):
    """Part `maps`: a map for each picture, a palette file (the indices are the labels) or a grey one (its values are).

    Args:
        pictures, maps: their folders; they may be the same one, if the maps' names have a suffix.
        suffix: what a map's name has after the picture's, before the ending: `_labels` for 1.jpg and 1_labels.png.
        name: of the input.
        classes, values, ignore: see `LabelRule`.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example({"pictures": "pictures", "maps": "maps"}),
        Example({"pictures": ".", "maps": ".", "suffix": "_labels", "values": [0, 1], "ignore": 2}),
    )

    pictures: str
    maps: str
    suffix: str = ""
    name: str = "semantic"
    classes: int | None = Field(default=None, ge=1, le=65535)
    values: tuple[int, ...] | None = Field(default=None, min_length=1, max_length=65535)
    ignore: int | None = Field(default=None, ge=0, le=65535)

    @model_validator(mode="after")
    def _consistent(self) -> MapsData:
        check_apart(self.pictures, self.maps, self.suffix, "map")
        self._rule()
        return self

    def _rule(self) -> LabelRule:
        return LabelRule(classes=self.classes, values=self.values, ignore=self.ignore)

    def open(self, folder: Path) -> Records:
        root, beside = folder / self.pictures, folder / self.maps
        pairs = paired(root, beside, self._maps(beside), "map", self.missing)
        records = [
            Record(name, picture, {}, {} if file is None else {self.name: file})
            for name, (picture, file) in pairs.found.items()
        ]
        geometry: dict[str, Geometry] = {self.name: "map"}
        return Records(records, geometry, self.background, pairs.notes, {self.name: self._rule()})

    def _maps(self, folder: Path) -> dict[str, Path]:
        """Stem of the picture -> file."""
        found: dict[str, Path] = {}
        for name, path in listing(folder).pictures.items():
            if not stem(name).endswith(self.suffix):
                continue
            key = stem(name).removesuffix(self.suffix)
            if path.suffix.lower() in LOSSY:
                what = f"a {path.suffix} file does not keep labels exactly"
                raise InputError("bad-file", what, where=str(path), fits="a palette or grey PNG")
            if key in found:
                raise InputError("file-twice", f"there is {found[key].name} too", where=str(path), fits="one map")
            found[key] = path
        return found

    def write_example(self, folder: Path) -> None:
        for number in range(2):
            write_example_image(folder / self.pictures / f"{number}.png", number)
            path = folder / self.maps / f"{number}{self.suffix}.png"
            path.parent.mkdir(exist_ok=True)
            Image.frombytes("L", (12, 8), bytes((i + number) % 3 for i in range(96))).save(path)
