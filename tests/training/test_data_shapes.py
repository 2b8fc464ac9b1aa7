"""What a size does to pictures is said before a run, from the headers, in every source with pictures."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ldmkit_training.data import shapes
from ldmkit_training.data.section import DataSection, open_data
from PIL import Image

Size = tuple[int, int]
SMALL: list[Size] = [(16, 16)] * 6 + [(400, 16), (8, 8), (1, 1), (16, 400), (3, 5), (100, 100)]
"""(width, height)."""


def write(folder: Path, sizes: Sequence[Size], **saving: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (9, 90, 200)).save(folder / f"{number:02}.png", **saving)


def said(folder: Path, train: dict[str, Any], **section: Any) -> list[str]:
    made = DataSection.model_validate({"train": train, "size": [64, 64], **section})
    return shapes.said_of_sizes(made, open_data(made, folder)[0])


FOLDER = {"type": "folder", "config": {"folder": "p"}}


def test_small_pictures_and_those_of_which_little_is_seen(tmp_path: Path) -> None:
    """Of 400 x 16 the middle 16 x 16 is seen, enlarged four times."""
    write(tmp_path / "p", SMALL)
    (found,) = said(tmp_path, FOLDER, fit="crop")
    assert found == "data.size: 11 of 12 pictures are enlarged to 64x64, up to 64 times; of 2 less than half is seen"
    (found,) = said(tmp_path, FOLDER, fit="random-crop")
    assert "11 of 12" in found
    (found,) = said(tmp_path, FOLDER, fit="resize")
    assert "11 of 12" in found and "half" not in found
    stretched, enlarged = said(tmp_path, FOLDER)
    assert "3 of 12 pictures are stretched, up to 25 times" in stretched and "enlarged" in enlarged


def test_large_pictures_say_nothing(tmp_path: Path) -> None:
    write(tmp_path / "p", [(64, 64), (640, 480), (480, 640), (100, 64)])
    assert said(tmp_path, FOLDER, fit="crop") == [] == said(tmp_path, FOLDER, fit="resize")
    write(tmp_path / "p", [(640, 64)])
    assert said(tmp_path, FOLDER, fit="crop") == ["data.size: of 1 of 4 pictures less than half is seen"]


def test_a_picture_that_lies_on_its_side(tmp_path: Path) -> None:
    """EXIF turns it: 128 x 32 rows and columns, of which the middle quarter is seen."""
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "p", [(32, 128)], exif=exif)
    section = DataSection.model_validate({"train": FOLDER, "size": [32, 128], "fit": "crop"})
    assert open_data(section, tmp_path)[0].picture_size(0) == (32, 128)
    assert shapes.said_of_sizes(section, open_data(section, tmp_path)[0]) == []


def archived(folder: Path) -> dict[str, Any]:
    with tarfile.open(folder / "a.tar", "w") as archive:
        for path in sorted((folder / "p").glob("*.png")):
            entry = tarfile.TarInfo(path.name)
            entry.size = len(content := path.read_bytes())
            archive.addfile(entry, io.BytesIO(content))
    return {"type": "shards", "config": {"shards": "a.tar"}}


def by_class(folder: Path) -> dict[str, Any]:
    (folder / "c").mkdir()
    (folder / "p").rename(folder / "c" / "one")
    return {"type": "classes", "config": {"folder": "c"}}


def concatenated(folder: Path) -> dict[str, Any]:
    write(folder / "q", [(200, 200)])
    return {"type": "concat", "config": {"sources": [FOLDER, {"type": "folder", "config": {"folder": "q"}}]}}


@pytest.mark.parametrize("make", [archived, by_class, concatenated])
def test_every_source_reads_the_headers(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "p", SMALL)
    train = make(tmp_path)
    monkeypatch.setattr(shapes, "MOST_DECODED", 0)
    assert "data.size: 11 of 1" in said(tmp_path, train, fit="crop")[0]


def test_damaged_files_and_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "p", [(16, 16)] * 8)
    (tmp_path / "p" / "03.png").write_bytes(b"no picture")
    assert "7 of 7 pictures looked at" in said(tmp_path, FOLDER, fit="crop")[0]
    monkeypatch.setattr(shapes, "MOST", 2)
    assert "2 of 2 pictures looked at" in said(tmp_path, FOLDER, fit="crop")[0]
