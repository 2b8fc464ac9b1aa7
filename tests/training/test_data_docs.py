"""Every block of docs/data.md is read, with the files that the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from data_sources import picture, png, tar
from ldmkit_training.data.batches import Batches
from ldmkit_training.data.section import DataSection, open_data
from PIL import Image

PAGE = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"```yaml\n# inputs: ([^\n]*)\n(.*?)```", PAGE, re.S)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The files of the page: those listed as text blocks, and those whose contents are shown."""
    for block in re.findall(r"(?<!`:\n\n)```text\n(.*?)```", PAGE, re.S):
        for name in block.split():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            labels = np.random.default_rng(0).integers(0, 4, (32, 48), dtype=np.uint8)
            if path.suffix == ".tar":
                members = {"1.png": png(np.zeros((32, 48, 3), np.uint8)), "1.txt": b"a house", "1.cls": b"3"}
                tar(path, members | {"1.areas.png": png(labels % 3)})
            elif path.suffix == ".npy":
                np.save(path, labels / 3)
            elif "labels" in name:
                Image.fromarray(labels).save(path)
            else:
                picture(path, (48, 32))
    for name, content in re.findall(r"`([^`\n]+)`:\n\n```(?:json|text)\n(.*?)```", PAGE, re.S):
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_recipes_of_the_page(files: Path, number: int) -> None:
    inputs, text = RECIPES[number]
    section = DataSection.of(yaml.safe_load(text), "data")
    train, _ = open_data(section, files)
    assert set(train.geometry) == set(inputs.split(", "))
    batch = Batches(train, section, seed=0).at(0)[0]
    assert batch.images is not None and tuple(batch.images.shape[2:]) == batch.size
    met = {section.inputs.get(name, name) for name in inputs.split(", ")}
    assert {name for row in batch.inputs for name in row} == met


def test_the_page_shows_every_source() -> None:
    assert len(RECIPES) == 15 == PAGE.count("```yaml")
    assert {kind for _, text in RECIPES for kind in re.findall(r"type: (\w+)", text)} == {
        "folder",
        "table",
        "classes",
        "coco",
        "maps",
        "beside",
        "shards",
        "join",
        "concat",
    }
