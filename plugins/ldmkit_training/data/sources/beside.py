"""Pictures and a file of any input beside each: a depth map, a sketch, a hint, a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from ldmkit import Example, Geometry, InputError
from ldmkit_training.data.sources.finding import listing, stem
from ldmkit_training.data.sources.pairs import check_apart, paired
from ldmkit_training.data.sources.records import FileData, Record, Records, write_example_image

Ending = Annotated[str, Field(pattern=r"^\.[A-Za-z0-9_.-]+$")]


class BesideData(FileData):
    """Part `beside`: a file for each picture, which the input `name` is read from as the model's conditioner reads it.

    A file that lies on the picture (a hint, a mask, a map of values) is cropped and mirrored with it. Label maps with
    rules of their own (`classes`, `ignore`): part `maps`.

    Args:
        pictures, files: their folders; they may be the same one, if the files' names have a suffix.
        suffix: what a file's name has after the picture's, before the ending: `_depth` for 1.jpg and 1_depth.npy.
        name: of the input.
        endings: of the files; others are left alone.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example({"pictures": "pictures", "files": "depth", "name": "depth"}),
        Example({"pictures": ".", "files": ".", "suffix": "_sketch", "name": "sketch", "endings": [".png"]}),
    )

    pictures: str
    files: str
    name: str = Field(min_length=1)
    suffix: str = ""
    endings: tuple[Ending, ...] = Field(
        default=(".png", ".npy", ".tif", ".tiff", ".pfm", ".jpg", ".jpeg", ".webp"), min_length=1
    )

    @model_validator(mode="after")
    def _apart(self) -> BesideData:
        check_apart(self.pictures, self.files, self.suffix, "file")
        return self

    def open(self, folder: Path) -> Records:
        root, beside = folder / self.pictures, folder / self.files
        pairs = paired(root, beside, self._files(beside), self.name, self.missing)
        records = [
            Record(name, picture, {} if file is None else {self.name: file.relative_to(beside).as_posix()}, base=beside)
            for name, (picture, file) in pairs.found.items()
        ]
        geometry: dict[str, Geometry] = {self.name: "none"}
        return Records(records, geometry, self.background, pairs.notes)

    def _files(self, folder: Path) -> dict[str, Path]:
        """Stem of the picture -> file."""
        found: dict[str, Path] = {}
        files, endings = listing(folder, empty=True), {ending.lower() for ending in self.endings}
        for name, path in sorted({**files.pictures, **files.others}.items()):
            if path.suffix.lower() not in endings or not stem(name).endswith(self.suffix):
                continue
            key = stem(name).removesuffix(self.suffix)
            if key in found:
                what = f"there is {found[key].name} too"
                raise InputError("file-twice", what, where=str(path), fits="one of them, or `endings` that tell")
            found[key] = path
        if not found:
            what = f"there is no file of that kind in it: {', '.join(self.endings)}"
            raise InputError("no-samples", what, where=str(folder), fits="another folder, suffix or `endings`")
        return found

    def write_example(self, folder: Path) -> None:
        for number in range(2):
            write_example_image(folder / self.pictures / f"{number}.png", number)
            write_example_image(folder / self.files / f"{number}{self.suffix}.png", number + 2)
