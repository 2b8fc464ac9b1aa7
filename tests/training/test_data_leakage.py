"""Said before a run: held-out data that are trained on, untrained nulls, folders that are no classes, stretching."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from ldmkit_training.before.preflight import check_ready
from ldmkit_training.before.recipe import build_stage, parse_recipe
from ldmkit_training.data import leakage
from ldmkit_training.data.section import DataSection, open_data
from PIL import Image
from torch import device

import ldmkit


def pictures(folder: Path, names: Sequence[str], seed: int = 0) -> None:
    """Pictures of noise, all different."""
    random = np.random.default_rng(seed)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


def source(folder: str, **config: Any) -> dict[str, Any]:
    return {"type": "folder", "config": {"folder": folder, **config}}


def said(folder: Path, train: dict[str, Any], validation: dict[str, Any] | None) -> str | None:
    section = DataSection.model_validate({"train": train, "validation": validation, "size": [8, 8]})
    return leakage.leaked(section, *open_data(section, folder))


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    pictures(tmp_path / "train", [f"{i}.png" for i in range(6)])
    pictures(tmp_path / "held", [f"{i}.png" for i in range(4)], seed=1)
    return tmp_path


def test_the_same_source(halves: Path) -> None:
    assert "data.validation is data.train" in str(said(halves, source("train"), source("train")))
    assert said(halves, source("train"), source("held")) is None
    assert said(halves, source("train"), None) is None


@pytest.mark.parametrize("most", [20_000, 3])  # all, or those of the same names
def test_a_copy_under_another_folder(halves: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(leakage, "MOST_TRAINED", most)
    (halves / "held/deeper").mkdir()
    shutil.copy(halves / "train/4.png", halves / "held/deeper/4.png")
    assert "1 of 5 held-out pictures are in the training data too: 'deeper/4.png'" in str(
        said(halves, source("train"), source("held"))
    )


def test_other_captions_and_other_sources_hide_nothing(halves: Path) -> None:
    pictures(halves / "sorted", ["day/1.png"], seed=2)
    shutil.copy(halves / "train/0.png", halves / "sorted/day/2.png")
    classes = {"type": "classes", "config": {"folder": "sorted"}}
    assert "1 of 2 held-out" in str(said(halves, source("train"), classes))


def test_it_is_said_before_a_run(tmp_path: Path) -> None:
    recipe = tiny.denoiser_recipe(
        tmp_path / "out", "data.validation.config.split=train", "data.validation.config.count=24"
    )
    with pytest.warns(UserWarning, match=r"data\.validation is data\.train"):
        ready(recipe)


def ready(recipe: Any) -> None:
    check_ready(recipe, build_stage(recipe, Path()), *open_data(recipe.data, Path()), device("cpu"))


def test_a_null_that_no_row_trains(tmp_path: Path) -> None:
    data = tiny.denoiser_data(tmp_path / "out")
    never = data | {"objective": {}}
    with pytest.warns(UserWarning, match=r"drops 'label' in no row: the null in its place is not trained"):
        ready(parse_recipe(never))
    for dropout in ({"rates": {"label": 0.1}}, {"none": 0.1}):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ready(parse_recipe(data | {"objective": {"dropout": dropout}}))


@pytest.mark.parametrize(
    ("dropout", "wanted"),
    [
        ({"rates": {"label": 1.0}}, "in every row: the condition is never seen"),
        ({"none": 1.0}, "in every row: the condition is never seen"),
        ({"rates": {"label": 0.99}}, "in every row: the condition is never seen"),  # 24 rows: 0.24 of one
        ({"rates": {"label": 1e-9}}, "in no row: the null in its place is not trained"),
    ],
)
def test_a_condition_or_a_null_that_not_one_row_sees(tmp_path: Path, dropout: dict[str, Any], wanted: str) -> None:
    with pytest.warns(UserWarning, match=f"drops 'label' {wanted}"):
        ready(parse_recipe(tiny.denoiser_data(tmp_path / "out") | {"objective": {"dropout": dropout}}))


def opened(root: Path, /, **config: Any) -> Any:
    section = DataSection.model_validate({"train": {"type": "classes", "config": config}, "size": [8, 8]})
    return open_data(section, root)[0]


def test_folders_of_splits_are_no_classes(tmp_path: Path) -> None:
    pictures(tmp_path / "all", [f"{s}/{c}/1.png" for s in ("train", "val") for c in ("cat", "dog")])
    with pytest.raises(ldmkit.InputError, match=r"named like splits.*all/train"):
        opened(tmp_path, folder="all")
    assert len(opened(tmp_path, folder="all/train")) == 2
    assert len(opened(tmp_path, folder="all", classes=["train", "val"])) == 4
    pictures(tmp_path / "real", ["train/1.png", "test/1.png"])  # pictures of trains, and of tests
    assert len(opened(tmp_path, folder="real")) == 2


def test_folders_named_by_numbers_that_get_others(tmp_path: Path) -> None:
    pictures(tmp_path / "twelve", [f"{i}/1.png" for i in range(12)])
    pictures(tmp_path / "ten", [f"{i}/1.png" for i in range(10)])
    pictures(tmp_path / "padded", [f"{i:02}/1.png" for i in range(12)])
    (note,) = opened(tmp_path, folder="twelve", numbers=True).notes
    assert "folder '10' is 2, folder '11' is 3, folder '2' is 4 and 7 more" in note
    ordered = opened(tmp_path, folder="twelve", numbers=True, classes=[str(i) for i in range(12)])
    assert ordered.notes == () and {r.id.split("/")[0]: r.inputs["label"] for r in ordered.records} == {
        str(i): i for i in range(12)
    }
    for folder in ("ten", "padded"):
        assert opened(tmp_path, folder=folder, numbers=True).notes == ()
    assert opened(tmp_path, folder="twelve").notes == ()  # names are labels as they are


def test_names_that_mean_something_elsewhere(tmp_path: Path) -> None:
    def notes(kind: str, name: str) -> tuple[str, ...]:
        data = DataSection.model_validate({"train": {"type": kind, "config": {"folder": name}}, "size": [8, 8]})
        return tuple(open_data(data, tmp_path)[0].notes)

    pictures(tmp_path / "splits", ["train/1.png", "test/1.png"])
    pictures(tmp_path / "kohya", ["10_sks dog/1.png", "1_dog/1.png"])
    pictures(tmp_path / "plain", ["train/1.png", "day/1.png", "2.png"])
    for kind in ("folder", "classes"):
        assert "'test', 'train' are named like splits: the pictures of all are read" in notes(kind, "splits")[0]
        assert "the numbers repeat nothing here" in notes(kind, "kohya")[0]
    assert notes("folder", "plain") == () == notes("folder", "splits/train")


def test_pictures_that_are_stretched(tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    for name, size in (("1.png", (32, 16)), ("2.png", (16, 16)), ("3.png", (17, 16))):
        Image.new("RGB", size).save(folder / name)
    data = tiny.codec_data(tmp_path / "out", "validation=null")
    data["data"] |= {"train": source(str(folder)), "validation": None}
    with pytest.warns(UserWarning, match=r"1 of 3 pictures are stretched, up to 2 times, to 16x16"):
        ready(parse_recipe(data))
    for fit in ("resize", "crop"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ready(parse_recipe(data | {"data": data["data"] | {"fit": fit}}))
