"""Metadata of a folder as other programs write it, and paths in it."""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import tiny
from data_sources import lines, opened, picture
from ldmkit_training.data.identity import identity
from ldmkit_training.data.places import Place
from ldmkit_training.data.sources.located import Located
from ldmkit_training.loop.engine import Engine

from ldmkit.errors import InputError

NAMES = ["a, b.png", 'quote "x".PNG', "Käse ♥.jpg", "deep/er/1.png", "line\nbreak.png"]


def written(path: Path, rows: list[list[str]], encoding: str = "utf-8", **how: Any) -> None:
    file = io.StringIO()
    csv.writer(file, **how).writerows(rows)
    path.write_bytes(file.getvalue().encode(encoding))


@pytest.mark.parametrize("how", [{}, {"lineterminator": "\n"}, {"quoting": csv.QUOTE_ALL}])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_and_texts_come_back_from_csv(tmp_path: Path, how: Any, encoding: str, form: str) -> None:
    for name in NAMES:
        picture(tmp_path / name)
    texts = ['red, and "blue"', "two\nlines", "007", " spaces ", "ü"]
    rows = [[unicodedata.normalize(form, name), text] for name, text in zip(NAMES, texts, strict=True)]  # type: ignore[arg-type]
    written(tmp_path / "metadata.csv", [["file_name", "text"], *rows], encoding, **how)
    data = opened("folder", tmp_path, folder=".")
    found = {data.id(i): data.inputs(i)["text"] for i in range(len(data))}
    assert found == dict(zip(NAMES, texts, strict=True))


def test_columns_of_numbers_empty_cells_and_boxes(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"{number}.png")
    box = '[{"label": "x", "box": [0, 0, 1, 1]}]'
    rows = [["0.png", "3", "1.5", "1", box], ["1.png", "-4", "2", "x", "[]"], ["2.png", "", "1e3", "01", "[]"]]
    written(tmp_path / "metadata.csv", [["file_name", "whole", "real", "mixed", "layout"], *rows])
    data = opened("folder", tmp_path, folder=".", missing="allow")
    assert data.inputs(0) == {"whole": 3, "real": 1.5, "mixed": "1", "layout": [{"label": "x", "box": [0, 0, 1, 1]}]}
    assert data.inputs(1) == {"whole": -4, "real": 2.0, "mixed": "x", "layout": []} and "whole" not in data.inputs(2)
    assert any("1 line(s) have no 'whole': '2.png'" in note for note in data.notes)


def test_metadata_of_folders_below(tmp_path: Path) -> None:
    """As imagefolder has it: each file is about the pictures of its own folder."""
    for name in ("train/0.png", "train/cats/1.png", "test/0.png"):
        picture(tmp_path / "d" / name)
    lines(
        tmp_path / "d/train/metadata.jsonl",
        {"file_name": "0.png", "text": "a"},
        {"file_name": "cats/1.png", "text": "b"},
    )
    written(tmp_path / "d/test/metadata.csv", [["file_name", "text"], ["0.png", "c"]])
    data = opened("folder", tmp_path, folder="d")
    found = {data.id(i): data.inputs(i)["text"] for i in range(3)}
    assert found == {"train/0.png": "a", "train/cats/1.png": "b", "test/0.png": "c"}
    assert data.base(0, "text") == tmp_path / "d/test"
    lines(tmp_path / "d/metadata.jsonl", {"file_name": "test/0.png", "text": "d"})
    with pytest.raises(InputError, match="stands in another one too"):
        opened("folder", tmp_path, folder="d")
    assert opened("folder", tmp_path, folder="d", metadata="metadata.jsonl", missing="allow").inputs(0) == {"text": "d"}


def test_names_that_only_write_accents_otherwise_are_refused(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        picture(tmp_path / unicodedata.normalize(form, "ü.png"))  # type: ignore[arg-type]
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system takes both for one name")
    with pytest.raises(InputError, match="with its accents written otherwise"):
        opened("folder", tmp_path, folder=".")


def controlnet(tmp_path: Path, *overrides: str, folder: str = "d", value: str = "hints/{}.png") -> Any:
    """The usual layout of hints: a folder of them beside the pictures, below the metadata."""
    for number in range(4):
        picture(tmp_path / f"{folder}/images/{number}.png", (16, 16), (20 * number, 9, 9))
        picture(tmp_path / f"{folder}/hints/{number}.png", (16, 16), (9, 20 * number, 9))
    rows = [{"file_name": f"images/{n}.png", "image": value.format(n)} for n in range(4)]
    lines(tmp_path / f"{folder}/metadata.jsonl", *rows)
    data = tiny.denoiser_data(tmp_path / "run", "validation=null", "data.validation=null", "steps=2")
    data["data"]["train"] = {"type": "folder", "config": {"folder": folder}}
    data["model"]["conditioners"] = {"image": {"type": "image"}}
    data["model"]["denoiser"]["config"] |= {"attention": ["none", "none"], "context_dim": None, "in_channels": 6}
    data["objective"] = {}
    return tiny.parse_recipe(tiny.overridden(data, overrides))


def test_paths_in_rows_start_from_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = controlnet(tmp_path)
    picture(tmp_path / "elsewhere/hints/0.png", (16, 16), (255, 255, 255))
    monkeypatch.chdir(tmp_path / "elsewhere")  # a path that starts from here would be found, and be another picture
    data = opened("folder", tmp_path, folder="d")
    assert [data.id(i) for i in range(len(data))] == [f"images/{n}.png" for n in range(4)]
    assert "4 picture(s) are inputs of others, not samples: 'hints/0.png'" in "; ".join(data.notes)
    engine = Engine(recipe, tmp_path)
    hint = engine.train_data.inputs(3)["image"]
    assert hint[0, 0].tolist() == [9, 60, 9] and engine.run().step == 2


def test_moved_data_with_paths_are_the_same_and_other_hints_are_not(tmp_path: Path) -> None:
    found = []
    for folder in ("d", "moved"):
        controlnet(tmp_path, folder=folder)
        found.append(Located(opened("folder", tmp_path, folder=folder), [Place("image")]))
    assert identity(found[0]) == identity(found[1])
    before = found[1].fingerprint
    picture(tmp_path / "moved/hints/2.png", (16, 16), (1, 2, 3))
    assert identity(found[0])["pictures"] != identity(found[1])["pictures"] and found[1].fingerprint != before


@pytest.mark.parametrize("value", ["../d/hints/{}.png", "../out/{}.png", "{root}/out/{}.png"])
def test_paths_out_of_the_folder_are_read_and_said(tmp_path: Path, value: str) -> None:
    controlnet(tmp_path, value=value.replace("{root}", str(tmp_path)))
    for number in range(4):
        picture(tmp_path / f"out/{number}.png", (16, 16))
    data = Located(opened("folder", tmp_path, folder="d", missing="allow"), [Place("image")])
    said = "4 input(s) are files outside of the data folder" in "; ".join(data.notes)
    assert said == ("out/" in value)
    hints = [data.inputs(i)["image"] for i in range(len(data)) if "image" in data.inputs(i)]
    assert len(hints) == 4 and all(Path(hint).is_file() for hint in hints)


def test_a_hint_that_is_not_there_is_named(tmp_path: Path) -> None:
    recipe = controlnet(tmp_path)
    (tmp_path / "d/hints/1.png").unlink()
    with pytest.raises(InputError, match=r"hints/1\.png"):
        Engine(recipe, tmp_path)
