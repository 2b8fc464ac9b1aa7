"""An input that lies on the picture, and that no crop or mirror is applied to, is refused where there are such."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from ldmkit_training.engine import Engine
from ldmkit_training.plan import make_plan
from ldmkit_training.recipe import Recipe
from PIL import Image

from ldmkit.errors import SpecError


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    """A picture beside each picture as a plane that is concatenated."""
    folder = tmp_path / "d"
    (folder / ".hints").mkdir(parents=True)
    rows = []
    for number in range(8):
        for path in (folder / f"{number}.png", folder / f".hints/{number}.png"):
            Image.new("RGB", (16, 16), (20 * number,) * 3).save(path)
        rows.append(json.dumps({"file_name": f"{number}.png", "image": str(folder / f".hints/{number}.png")}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    data = tiny.denoiser_data(tmp_path / "run", "validation=null", "data.validation=null")
    data["data"]["train"] = {"type": "folder", "config": {"folder": str(folder)}}
    data["model"]["conditioners"] = {"image": {"type": "image"}}
    data["model"]["denoiser"]["config"] |= {"attention": ["none", "none"], "context_dim": None, "in_channels": 6}
    data["objective"] = {}
    return tiny.parse_recipe(tiny.overridden(data, overrides))


@pytest.mark.parametrize("change", ["data.mirror=0.5", "data.fit=random-crop", "data.fit=crop"])
def test_a_picture_as_input_and_crops_or_mirrors_are_refused(tmp_path: Path, change: str) -> None:
    made = recipe(tmp_path, change)
    for begin in (Engine, make_plan):
        with pytest.raises(SpecError) as caught:
            begin(made, tmp_path)
        assert caught.value.code == "spec.not-moved" and "'image'" in caught.value.what
    assert not (tmp_path / "run").exists()


def test_a_picture_as_input_is_trained_on_where_nothing_moves(tmp_path: Path) -> None:
    assert Engine(recipe(tmp_path, "steps=1"), tmp_path).run().step == 1
