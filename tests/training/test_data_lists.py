"""Inputs that are several pictures or masks: read beside the data, part of its identity, moved or refused by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from data_sources import lines, png
from ldmkit_training.before.opening import open_recipe
from ldmkit_training.before.recipe import Recipe
from ldmkit_training.data.batches import Batches
from ldmkit_training.data.identity import identity
from ldmkit_training.loop.devices import open_accelerator
from PIL import Image

from ldmkit import InputError, SpecError

TOWER = {"width": 16, "layers": 2, "heads": 2, "mlp": 32, "projection": 8, "edge": 8, "patch": 4,
         "pictures": {"shortest": 8, "crop": [8, 8]}}  # fmt: skip


def noise(seed: int, height: int = 16, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def recipe(tmp_path: Path, conditioner: dict[str, Any], given: list[Any], **data: Any) -> Recipe:
    """Pictures with an input `given`, whose files lie in `refs/` beside them."""
    (tmp_path / "d/refs").mkdir(parents=True, exist_ok=True)
    for number in range(4):
        (tmp_path / f"d/{number}.png").write_bytes(png(noise(number)))
        mask = np.zeros((16, 16), np.uint8)
        mask[:, : 4 + number] = 255
        named = {f"refs/{number}.png": noise(10 + number, 12, 20), f"refs/m{number}.png": mask}
        for name in named.keys() & {one for value in given for one in ([value] if isinstance(value, str) else value)}:
            (tmp_path / "d" / name).write_bytes(png(named[name]))
    lines(tmp_path / "d/metadata.jsonl", *({"file_name": f"{n}.png", "given": v} for n, v in enumerate(given)))
    made = tiny.denoiser_data(tmp_path / "run", "data.validation=null", "validation=null", "steps=2")
    made["data"] |= {"train": {"type": "folder", "config": {"folder": "d"}}, **data}
    made["model"]["conditioners"] = {"given": conditioner}
    made["objective"] = {}
    if conditioner["type"] == "picture-regions":
        made["model"]["denoiser"]["config"] |= {"attention": ["none", "none"], "context_dim": None, "in_channels": 5}
    return tiny.parse_recipe(made)


REFERENCES = [["refs/0.png", "refs/1.png"], "refs/1.png", ["refs/2.png"], ["refs/3.png", "refs/0.png"]]


def test_lists_of_references_start_from_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    made = recipe(tmp_path, {"type": "clip-image", "config": TOWER}, REFERENCES, mirror=0.5)
    stage, train, _ = open_recipe(made, tmp_path, open_accelerator())
    assert any("'given' is a picture that is read as tokens: mirror: 0.5 leaves it as it is" in n for n in train.notes)
    [batch] = Batches(train, made.data, seed=0, names=stage.inputs).at(0)
    for name, row in zip(batch.ids, batch.inputs, strict=True):
        parsed = stage.parsed(row, name)["given"]
        wanted = REFERENCES[int(name[0])]
        files = wanted if isinstance(wanted, list) else [wanted]
        assert len(parsed) == len(files)
        for one, file in zip(parsed, files, strict=True):
            levels = ((one + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
            assert np.array_equal(levels, np.asarray(Image.open(tmp_path / "d" / file)))
    assert tiny.train(made, tmp_path).step == 2


def test_their_bytes_are_part_of_the_datas_identity(tmp_path: Path) -> None:
    made = recipe(tmp_path, {"type": "clip-image", "config": TOWER}, REFERENCES)
    _, train, _ = open_recipe(made, tmp_path, open_accelerator())
    before, seen = identity(train), train.fingerprint
    path = tmp_path / "d/refs/3.png"
    stat = path.stat()
    path.write_bytes(png(noise(99, 12, 20)))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert identity(train) != before and train.fingerprint != seen


def test_a_reference_that_is_not_there_is_named(tmp_path: Path) -> None:
    made = recipe(tmp_path, {"type": "clip-image", "config": TOWER}, [*REFERENCES[:3], ["refs/3.png", "refs/9.png"]])
    with pytest.raises(InputError, match=r"9\.png"):
        open_recipe(made, tmp_path, open_accelerator())


MASKS = [["refs/m0.png", "refs/m1.png"], "refs/m1.png", ["refs/m2.png"], ["refs/m3.png", "refs/m0.png"]]
REGIONS = {"type": "picture-regions", "config": {"count": 2}}


def test_masks_of_regions_lie_on_the_picture_and_cannot_be_moved_in_lists(tmp_path: Path) -> None:
    for changes in ({"mirror": 0.5}, {"fit": "crop"}, {"buckets": {"step": 8}}):
        with pytest.raises(SpecError) as caught:
            open_recipe(recipe(tmp_path, REGIONS, MASKS, **changes), tmp_path, open_accelerator())
        assert caught.value.code == "spec.not-moved" and "'given'" in caught.value.what
    assert tiny.train(recipe(tmp_path, REGIONS, MASKS), tmp_path).step == 2
