"""What stands in a data folder and is not read is counted and named; nothing is lost in a join."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from data_sources import opened, picture
from ldmkit_training.before.plan import make_plan
from ldmkit_training.command import _train
from PIL import Image, features

from ldmkit.errors import InputError


def test_pictures_that_are_not_read_are_counted_by_ending(tmp_path: Path) -> None:
    for name in ("0.png", "1.PNG", "2.bmp"):
        picture(tmp_path / "d" / name)
    picture(tmp_path / "d" / ".hidden" / "9.png")
    for name in ("3.jxl", "4.jxl", "5.psd", "0.txt", "1.txt", "notes.txt"):
        (tmp_path / "d" / name).write_bytes(b"x")
    dataset = opened("folder", tmp_path, folder="d")
    assert len(dataset) == 3
    assert list(dataset.notes) == [
        "3 of 6 picture-like files read; not read: 2 .jxl, 1 .psd",
        "1 hidden picture(s) not read",
        "2 .txt beside pictures not read",
    ]


@pytest.mark.parametrize("ending", ["jfif", "jpe", "avif"])
def test_endings_of_jpeg_and_avif_are_read(tmp_path: Path, ending: str) -> None:
    if ending == "avif" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    (tmp_path / "d").mkdir()
    Image.new("RGB", (16, 16), (200, 100, 50)).save(tmp_path / f"d/a.{ending}", "AVIF" if ending == "avif" else "JPEG")
    dataset = opened("folder", tmp_path, folder="d")
    assert not dataset.notes
    # a flat colour: both codecs keep it to a few levels at their default quality
    assert np.abs(dataset[0].image.astype(int) - [200, 100, 50]).max() <= 4


def test_a_join_that_adds_no_input_is_refused(tmp_path: Path) -> None:
    for folder in ("red", "blue"):
        picture(tmp_path / folder / "0.png")
    sources = [{"type": "folder", "config": {"folder": folder}} for folder in ("red", "blue")]
    for missing in ("error", "allow"):
        with pytest.raises(InputError, match="its pictures would be lost") as caught:
            opened("join", tmp_path, sources=sources, missing=missing)
        assert caught.value.code == "input.nothing-joined"


def test_a_run_says_what_is_left_out_when_it_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("d/0.png", "d/1.png", "held/0.png"):
        picture(tmp_path / name, (16, 16))
    for name in ("d/2.jxl", "held/1.psd"):
        (tmp_path / name).write_bytes(b"x")
    data = tiny.denoiser_data(tmp_path / "run", "steps=1")
    for key, name in (("train", "d"), ("validation", "held")):
        data["data"][key] = {"type": "folder", "config": {"folder": name}}
    recipe = tiny.parse_recipe(data)
    notes = make_plan(recipe, tmp_path).notes
    assert _train(recipe, tmp_path, False) == 0
    told = capsys.readouterr().out
    for said in ("2 of 3 picture-like files read; not read: 1 .jxl", "held out: 1 of 2 picture-like files read"):
        assert said in told and any(said in note for note in notes)


def test_json_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr when the run begins, and in what is printed at its end."""
    picture(tmp_path / "d/0.png", (16, 16))
    (tmp_path / "d/1.jxl").write_bytes(b"x")
    data = tiny.denoiser_data(tmp_path / "run", "steps=1", "data.validation=null", "validation=null")
    data["data"]["train"] = {"type": "folder", "config": {"folder": "d"}}
    data["data"]["batch"] = 1
    assert _train(tiny.parse_recipe(data), tmp_path, True) == 0
    printed = capsys.readouterr()
    said = "1 of 2 picture-like files read; not read: 1 .jxl"
    assert json.loads(printed.out)["notes"] == [said] and f"note     {said}" in printed.err
