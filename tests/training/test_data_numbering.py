"""Numbers of classes are those of the training data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_sources import coco, picture, section
from ldmkit_training.data.section import open_data

from ldmkit.errors import InputError


def classes(tmp_path: Path, folder: str, *names: str) -> dict[str, Any]:
    for name in names:
        picture(tmp_path / folder / name / "0.png")
    return {"type": "classes", "config": {"folder": folder, "numbers": True}}


def test_held_out_classes_take_the_numbers_of_training(tmp_path: Path) -> None:
    """By themselves the held-out folders would be 0 and 1."""
    rule = section(train=classes(tmp_path, "a", "cat", "dog", "newt"), validation=classes(tmp_path, "b", "cat", "newt"))
    _, held = open_data(rule, tmp_path)
    assert held is not None
    for index, number in enumerate((0, 2)):
        assert held.inputs(index)["label"] == held[index].inputs["label"] == number
        assert (held.known(index) or {})["label"] == number
    assert list(held.numbering["label"]) == ["cat", "dog", "newt"] and "as in data.train" in held.notes[-1]
    same = section(train=classes(tmp_path, "a"), validation=classes(tmp_path, "a"))
    assert not any("as in data.train" in note for note in (open_data(same, tmp_path)[1] or pytest.fail()).notes)


def test_boxes_too(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png"), picture(tmp_path / "in/b.png")
    coco(tmp_path / "train.json")
    coco(tmp_path / "held.json", categories=[{"id": 4, "name": "dust"}, {"id": 2, "name": "cell"}])
    config = {"pictures": "in", "numbers": True}
    parts = [{"type": "coco", "config": {**config, "annotations": name}} for name in ("train.json", "held.json")]
    train, held = open_data(section(train=parts[0], validation=parts[1]), tmp_path)
    assert held is not None and train.numbering["layout"] == ["dust", "cell"]
    assert [box["label"] for box in train.inputs(0)["layout"]] == [1, 0], "cell and dust"
    assert [box["label"] for box in held.inputs(0)["layout"]] == [0, 1], "dust and cell"


def test_a_class_that_training_does_not_have(tmp_path: Path) -> None:
    rule = section(train=classes(tmp_path, "a", "cat", "dog"), validation=classes(tmp_path, "b", "dgo"))
    with pytest.raises(InputError, match=r"has the class 'dgo', which data.train does not have.*did you mean 'dog'"):
        open_data(rule, tmp_path)
