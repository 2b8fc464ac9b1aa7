"""Files of the same name beside pictures, as the source `beside` pairs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sources import picture
from test_data_files import opened

from ldmkit.errors import InputError, SpecError

PAIR = {"pictures": "photos", "files": "depth", "name": "depth"}


def folder(root: Path, *maps: str) -> Path:
    for name in ("s/a.jpg", "b.png"):
        picture(root / "photos" / name)
    for name in maps:
        path = root / "depth" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, np.zeros((8, 12)))
        elif path.suffix == ".txt":
            path.write_text("of no interest")
        else:
            picture(path)
    return root


def test_files_have_their_pictures_names(tmp_path: Path) -> None:
    data = opened("beside", folder(tmp_path, "s/a.npy", "b.tiff", "notes.txt"), **PAIR)
    assert [data.id(i) for i in range(2)] == ["b.png", "s/a.jpg"]
    assert [data.inputs(i) for i in range(2)] == [{"depth": "b.tiff"}, {"depth": "s/a.npy"}]
    assert data.base(0, "depth") == tmp_path / "depth" and dict(data.geometry) == {"depth": "none"}


def test_files_in_the_folder_of_the_pictures_are_no_samples(tmp_path: Path) -> None:
    for name in ("1.png", "1_sketch.png", "2.png", "2_sketch.PNG"):
        picture(tmp_path / name)
    data = opened("beside", tmp_path, pictures=".", files=".", name="sketch", suffix="_sketch")
    assert [data.id(i) for i in range(len(data))] == ["1.png", "2.png"]
    assert data.inputs(1) == {"sketch": "2_sketch.PNG"}


@pytest.mark.parametrize(
    ("maps", "config", "said"),
    [
        (["b.npy"], {}, "1 picture.s. have no depth: 's/a.jpg'"),
        (["b.npy", "s/a.npy", "c.npy"], {}, "1 depth.s. have no picture: 'c.npy'"),
        (["b.npy", "s/a.npy", "b.png"], {}, "there is b.npy too"),
        (["b.npy", "s/a.npy"], {"endings": [".tif"]}, "no file of that kind"),
        (["b.npy", "s/a.npy"], {"files": "nowhere"}, "no such folder"),
    ],
)
def test_what_does_not_pair_is_named(tmp_path: Path, maps: list[str], config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        opened("beside", folder(tmp_path, *maps), **{**PAIR, **config})


def test_some_may_be_missing_where_that_is_said(tmp_path: Path) -> None:
    data = opened("beside", folder(tmp_path, "b.npy", "c.npy"), **PAIR, missing="allow")
    assert [data.inputs(i) for i in range(2)] == [{"depth": "b.npy"}, {}] and len(data.notes) == 2
    twice = folder(tmp_path / "twice", "b.npy", "s/a.npy")
    picture(twice / "photos/b.jpg")
    with pytest.raises(InputError, match="another picture has the same name"):
        opened("beside", twice, **PAIR)
    with pytest.raises(SpecError, match="one folder need a suffix"):
        opened("beside", tmp_path, pictures="photos", files="photos/", name="depth")


def test_data_that_moved_are_the_same_data(tmp_path: Path) -> None:
    first = opened("beside", folder(tmp_path / "x", "b.npy", "s/a.npy"), **PAIR)
    other = opened("beside", folder(tmp_path / "y", "b.npy", "s/a.npy"), **PAIR)
    assert [first.content(i) for i in range(2)] == [other.content(i) for i in range(2)]
