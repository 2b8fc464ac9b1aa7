"""A model that is told of each picture's size and crop (SDXL) is not trained on sizes of other crops than its own."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from ldmkit_training.before.opening import open_recipe
from ldmkit_training.before.plan import make_plan
from ldmkit_training.before.recipe import Recipe, parse_recipe
from ldmkit_training.data.batches import Batches
from ldmkit_training.data.cache.reading import latent_caches
from ldmkit_training.loop.devices import open_accelerator
from PIL import Image

from ldmkit import SpecError

UNET = {"channels": 3, "widths": [8, 16], "blocks": 1, "norm_groups": 4, "heads": 2, "attention": ["none", "self"]}


def recipe_of(root: Path, sizes: dict[str, Any] | None, **data: Any) -> Recipe:
    """Pictures of 40 x 90, with sizes beside them or not."""
    pictures = root / "pictures"
    pictures.mkdir()
    noise = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray((noise.random((40, 90, 3)) * 255).astype(np.uint8)).save(pictures / f"{i}.png")
    if sizes is not None:
        lines = [json.dumps({"file_name": f"{i}.png", "sizes": sizes}) for i in range(4)]
        (pictures / "metadata.jsonl").write_text("\n".join(lines))
    made = tiny.denoiser_data(root / "run", "steps=2", "data.validation=null", "validation=null")
    made["data"] |= {"train": {"type": "folder", "config": {"folder": "pictures"}}, **data}
    made["model"]["denoiser"]["config"] = UNET | {"vector": "mlp", "vector_dim": 48}
    made["model"]["conditioners"] = {"sizes": {"type": "size-codes", "config": {"width": 8}}}
    made["objective"] = {}
    return parse_recipe(made)


GIVEN = {"original": [40, 90], "crop": [3, 5], "target": [16, 16]}


@pytest.mark.parametrize("fit", ["crop", "random-crop"])
def test_crops_are_refused_where_the_data_say_one(tmp_path: Path, fit: str) -> None:
    with pytest.raises(SpecError, match="'sizes'") as caught:
        open_recipe(recipe_of(tmp_path, GIVEN, fit=fit), tmp_path, open_accelerator())
    assert caught.value.code == "spec.sizes-of-crops"


CROPS = [{"fit": "crop"}, {"fit": "random-crop", "mirror": 0.5}, {"size": [24, 16], "fit": "random-crop"},
         {"buckets": {"step": 8}, "size": [32, 32], "fit": "random-crop", "mirror": 1.0}]  # fmt: skip


@pytest.mark.parametrize("cache", [None, {"folder": "kept", "views": 3}])
@pytest.mark.parametrize("changes", CROPS, ids=str)
def test_each_view_is_told_where_its_crop_begins(tmp_path: Path, changes: dict[str, Any], cache: Any) -> None:
    """As diffusers' script for SDXL has it: the picture is resized so that it covers the target, mirrored, and cut at
    (top, left); every pixel of these pictures says where it stands."""
    made = recipe_of(tmp_path, None, **changes, cache=cache)
    rows, columns = np.mgrid[0:40, 0:90]
    where = np.stack([6 * rows, 2 * columns, 0 * rows], axis=2).astype(np.uint8)
    for number in range(4):
        Image.fromarray(where).save(tmp_path / f"pictures/{number}.png")
    stage, train, _ = open_recipe(made, tmp_path, open_accelerator())
    assert any("where its crop begins" in note for note in train.notes)
    codec = stage.frozen_codec
    assert codec is not None
    kept = None if cache is None else latent_caches(train, made.data, codec, tmp_path)
    batches = Batches(train, made.data, seed=0, names=stage.inputs, cache=kept)
    for step in range(6):
        [batch] = batches.at(step)
        shown = batch.images if kept is None else batch.latents
        assert shown is not None
        for image, inputs in zip(shown, batch.inputs, strict=True):
            stage.parsed(inputs, "row")
            told = inputs["sizes"]
            assert tuple(told["original"]) == (40, 90) and tuple(told["target"]) == batch.size == tuple(image.shape[1:])
            level = (image + 1) * 127.5
            mirrored = bool(level[1, 0, 0] > level[1, 0, -1])
            top, left = float(level[0, 0, 0]) / 6, float(level[1, 0, -1 if mirrored else 0]) / 2
            per_row = float(level[0, -1, 0] - level[0, 0, 0]) / 6 / (batch.size[0] - 1)  # pixels of the picture
            per_column = abs(float(level[1, 0, -1] - level[1, 0, 0])) / 2 / (batch.size[1] - 1)
            if mirrored:
                left = 90 - left - per_column * batch.size[1]
            # the first pixel's centre is half a step inside; eight-bit levels and rounding to whole pixels
            assert abs(told["crop"][0] - (top + 0.5) / per_row + 0.5) < 1.2
            assert abs(told["crop"][1] - (left + 0.5) / per_column + 0.5) < 1.8


@pytest.mark.parametrize("changes", [{}, {"fit": "resize"}, {"fit": "resize", "mirror": 1.0}], ids=str)
def test_stretched_pictures_have_their_own_size_too(tmp_path: Path, changes: dict[str, Any]) -> None:
    made = recipe_of(tmp_path, None, **changes)
    stage, train, _ = open_recipe(made, tmp_path, open_accelerator())
    [batch] = Batches(train, made.data, seed=0, names=stage.inputs).at(0)
    for inputs in batch.inputs:
        assert inputs["sizes"] == {"original": [40, 90], "crop": [0, 0], "target": [16, 16]}
    assert any(note.endswith("told of each picture's own size") for note in train.notes)


def test_a_mirror_is_refused_where_the_data_give_a_crop(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        open_recipe(recipe_of(tmp_path, GIVEN, fit="resize", mirror=0.5), tmp_path, open_accelerator())
    assert caught.value.code == "spec.sizes-of-crops"


@pytest.mark.parametrize(
    ("sizes", "data"),
    [
        (None, {"fit": "resize", "mirror": 0.5}),  # uncropped, mirrored or not: (0, 0)
        (GIVEN, {"fit": "resize"}),
        (GIVEN, {"fit": "crop", "moves": {"sizes": False}}),
    ],
    ids=["resized", "given", "said to be right"],
)
def test_others_are_trained_without_a_word_of_nulls(tmp_path: Path, sizes: Any, data: dict[str, Any]) -> None:
    """What is left out is still told, so that no null is untrained, nor the only thing that is seen."""
    recipe = recipe_of(tmp_path, sizes, **data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = make_plan(recipe, tmp_path)
    assert not [str(one.message) for one in caught if "null" in str(one.message)]
    (line,) = plan.wiring
    assert line.conditioner == "sizes" and line.given
