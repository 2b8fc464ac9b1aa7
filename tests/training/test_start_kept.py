"""What a start has and the recipe does not name comes along, whatever else the recipe names."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from ldmkit_training.before.recipe import Recipe, build_stage, parse_recipe

import ldmkit
from ldmkit import CompositionError, SpecError

TEXT = (
    "model.conditioners.text={type: ldm-text, assets: 'ldmkit_miniworld:vocabulary_files', config: "
    "{vocab_size: 192, dim: 8, layers: 1, heads: 2, head_dim: 4, max_length: 8, start: 2, end: 3}}"
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of classes and text."""
    folder = tmp_path_factory.mktemp("start")
    tiny.train(tiny.denoiser_recipe(folder / "run", TEXT, "steps=1"))
    return folder / "run"


def recipe_of(start: Path, out: Path, *overrides: str) -> Recipe:
    """One that names the denoiser and the text, as a fine-tuning run does."""
    data = tiny.denoiser_data(out, TEXT, "steps=1", *overrides)
    data["model"]["start"] = str(start)
    if data["model"]["conditioners"]["label"] is not None:
        del data["model"]["conditioners"]["label"]
    return parse_recipe(data)


def test_other_conditioners_of_the_start_are_kept_frozen_where_the_denoiser_is_named(
    start: Path, tmp_path: Path
) -> None:
    tiny.train(recipe_of(start, tmp_path / "run"))
    before, after = ldmkit.load(start / "model"), ldmkit.load(tmp_path / "run/model")
    assert set(after.conditioners) == {"label", "text"}
    own, theirs = (pipeline.conditioners["label"].state_dict() for pipeline in (after, before))
    tiny.assert_same(own, theirs)
    moved = zip(after.denoiser.parameters(), before.denoiser.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in moved)


def test_null_leaves_one_out(start: Path, tmp_path: Path) -> None:
    dropout = "objective.dropout={rates: {text: 0.2}}"
    stage = build_stage(recipe_of(start, tmp_path, "model.conditioners.label=null", dropout), tmp_path)
    assert set(stage.pipeline.conditioners) == {"text"}
    with pytest.raises(CompositionError, match="no 'txt' to leave out"):
        build_stage(recipe_of(start, tmp_path, "model.conditioners.txt=null"), tmp_path)


def test_null_without_a_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        tiny.denoiser_recipe(tmp_path, "model.conditioners.text=null")
    assert caught.value.code == "spec.nothing-left-out" and str(caught.value.where).endswith("model.conditioners.text")


def test_adapters_of_the_start_are_kept_too(start: Path, tmp_path: Path) -> None:
    pipeline = ldmkit.load(start / "model", mapped=False)
    cache = ldmkit.get("adapter", "deepcache")()
    pipeline.with_adapter("often", cache, {}).save(tmp_path / "adapted")
    stage = build_stage(recipe_of(tmp_path / "adapted", tmp_path / "run"), tmp_path)
    assert set(stage.pipeline.adapters) == {"often"}
    data = recipe_of(tmp_path / "adapted", tmp_path / "run").model_dump(mode="json")
    data["model"]["adapters"] = {"often": None}
    assert not build_stage(parse_recipe(data), tmp_path).pipeline.adapters
