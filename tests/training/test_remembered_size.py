"""A trained model draws pictures of the size that it was trained on, where nobody says another."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from ldmkit_training.before.recipe import Recipe, build_stage

import ldmkit


def size_of(recipe: Recipe) -> tuple[int, int] | None:
    """What the model of a recipe would be saved with."""
    stage = build_stage(recipe, Path())
    return stage.pipeline.defaults.size  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("defaults", ["null", "{steps: 2}"])
def test_a_saved_model_draws_the_size_of_its_training_pictures(tmp_path: Path, defaults: str) -> None:
    recipe = tiny.denoiser_recipe(tmp_path, f"model.defaults={defaults}", "data.size=[8, 24]", "steps=1")
    model = tiny.train(recipe).model
    assert model is not None
    pipe = ldmkit.load(model)
    assert pipe.defaults.size == (8, 24)
    assert pipe({"label": 0}, steps=1, seeds=[0]).images.shape == (1, 3, 8, 24)


def test_a_size_that_the_recipe_gives_is_kept(tmp_path: Path) -> None:
    assert size_of(tiny.denoiser_recipe(tmp_path, "model.defaults={size: [16, 32]}", "data.size=[8, 24]")) == (16, 32)


def test_a_start_that_learns_another_size_draws_that(tmp_path: Path) -> None:
    tiny.train(tiny.denoiser_recipe(tmp_path / "first", "steps=1"))
    start = {"start": str(tmp_path / "first/model")}
    data = tiny.denoiser_data(tmp_path / "second", "data.size=[8, 24]", "objective={}")
    longer = tiny.parse_recipe({**data, "model": start})
    assert size_of(longer) == (8, 24)
    notes = build_stage(longer, Path()).notes  # type: ignore[attr-defined]
    assert "defaults.size: 8 x 24, the training pictures' (the start's was 16 x 16)" in notes
    frozen = {**data["model"], **start, "defaults": None}
    frozen["denoiser"] = {**frozen["denoiser"], "train": False}
    assert size_of(tiny.parse_recipe({**data, "model": frozen})) == (tiny.SIZE, tiny.SIZE)
