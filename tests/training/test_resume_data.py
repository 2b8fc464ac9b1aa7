"""A run goes on with the data it was begun with: their content is compared, not where they lie."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from data_sources import opened
from ldmkit_training.before.recipe import Recipe
from ldmkit_training.data.identity import differing, identity
from ldmkit_training.loop import checkpoints
from ldmkit_training.loop.engine import Engine
from PIL import Image

from ldmkit.errors import SpecError


def pictures(folder: Path, count: int = 8, side: int = 16) -> Path:
    """Grey pictures 0.png ... with a label each."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (side, side), (20 * number,) * 3).save(folder / f"{number}.png")
    labels(folder, {f"{number}.png": "snow" for number in range(count)})
    return folder


def labels(folder: Path, known: dict[str, str]) -> None:
    rows = [json.dumps({"file_name": name, "label": label}) for name, label in known.items()]
    (folder / "metadata.jsonl").write_text("\n".join(rows))


def recipe(tmp_path: Path, name: str = "d", steps: int = 2) -> Recipe:
    data = tiny.denoiser_data(tmp_path / "run", f"steps={steps}", "validation=null", "data.validation=null")
    data["data"]["train"] = {"type": "folder", "config": {"folder": str(tmp_path / name)}}
    return tiny.parse_recipe(data)


def remove(folder: Path) -> None:
    (folder / "7.png").unlink()
    labels(folder, {f"{number}.png": "snow" for number in range(7)})


def rename(folder: Path) -> None:
    (folder / "7.png").rename(folder / "8.png")
    labels(folder, {f"{number}.png": "snow" for number in (*range(7), 8)})


def relabel(folder: Path) -> None:
    labels(folder, {f"{number}.png": "snow" if number else "lake" for number in range(8)})


def repaint(folder: Path) -> None:
    before = (folder / "3.png").stat()
    Image.new("RGB", (16, 16), (61,) * 3).save(folder / "3.png")
    os.utime(folder / "3.png", ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = [(remove, "how many"), (rename, "names"), (relabel, "labels"), (repaint, "pictures")]


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=lambda case: getattr(case, "__name__", None))
def test_changed_data_are_refused_by_what_changed(tmp_path: Path, change: Any, said: str) -> None:
    folder = pictures(tmp_path / "d")
    tiny.train(recipe(tmp_path))
    change(folder)
    with pytest.raises(SpecError) as caught:
        tiny.train(recipe(tmp_path, steps=3))
    assert caught.value.code == "spec.other-data" and said in caught.value.what
    others = [words for _, words in CHANGES if words != said]
    assert not any(words in caught.value.what for words in others)
    engine = Engine(recipe(tmp_path, steps=3), tmp_path, allow_changed_data=True)
    assert said in engine.changed[0] and engine.run().step == 3
    tiny.train(recipe(tmp_path, steps=4))  # the newest checkpoint knows the data as they are


def test_data_that_moved_are_the_same_data(tmp_path: Path) -> None:
    pictures(tmp_path / "d")
    tiny.train(recipe(tmp_path))
    shutil.copytree(tmp_path / "d", tmp_path / "moved", copy_function=shutil.copyfile)  # with other times
    shutil.rmtree(tmp_path / "d")
    assert tiny.train(recipe(tmp_path, "moved", steps=3)).step == 3


def test_another_folder_with_other_pictures_is_another_recipe(tmp_path: Path) -> None:
    pictures(tmp_path / "d")
    tiny.train(recipe(tmp_path))
    repaint(pictures(tmp_path / "other"))
    with pytest.raises(SpecError) as caught:
        tiny.train(recipe(tmp_path, "other", steps=3))
    assert caught.value.code == "spec.other-recipe"


def test_a_checkpoint_that_says_nothing_of_its_data_is_resumed(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "d")
    Engine(recipe(tmp_path), tmp_path).run()
    made = checkpoints.read(checkpoints.folder_of(tmp_path / "run/checkpoints", 2))
    del made.state["data"]
    shutil.rmtree(tmp_path / "run/checkpoints")
    (tmp_path / "run/checkpoints").mkdir()
    checkpoints.write(tmp_path / "run/checkpoints", made, keep=1)
    relabel(folder)
    assert tiny.train(recipe(tmp_path, steps=3)).step == 3


def test_large_files_are_told_apart_at_both_ends_and_in_the_middle(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "a.bmp")
    path, size = folder / "a.bmp", (folder / "a.bmp").stat().st_size
    first = identity(opened("folder", tmp_path, folder="d"))
    content = path.read_bytes()
    for place in (60, size // 2 + 5, size - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert differing(first, identity(opened("folder", tmp_path, folder="d"))) == [
            "pictures or maps, or how they are read"
        ]
    path.write_bytes(content)
    assert identity(opened("folder", tmp_path, folder="d")) == first


def test_how_pictures_and_boxes_are_read_belongs_to_the_data(tmp_path: Path) -> None:
    pictures(tmp_path / "d")
    plain = identity(opened("folder", tmp_path, folder="d"))
    assert differing(plain, identity(opened("folder", tmp_path, folder="d", background=[0, 0, 0])))
    assert differing(plain, identity(opened("folder", tmp_path, folder="d", boxes=["label"])))


def test_a_source_without_files_is_compared_by_some_samples() -> None:
    config: dict[str, Any] = {"count": 100, "size": 32}
    one, same = (identity(opened("miniworld", Path(), **config, start=0)) for _ in range(2))
    assert one == same and not one["exact"] and one["count"] == 100
    assert differing(one, identity(opened("miniworld", Path(), **config, start=1)))
