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
@pytest.mark.parametrize("sizes", [None, GIVEN], ids=["left out", "given"])
def test_crops_are_refused(tmp_path: Path, fit: str, sizes: dict[str, Any] | None) -> None:
    with pytest.raises(SpecError, match="'sizes'") as caught:
        open_recipe(recipe_of(tmp_path, sizes, fit=fit), tmp_path, open_accelerator())
    assert caught.value.code == "spec.sizes-of-crops"


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
