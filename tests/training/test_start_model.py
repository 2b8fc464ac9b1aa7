"""What a recipe's model takes from a start is read as `ldmkit.load` reads it: latents, versions, memory, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from ldmkit_training.before.recipe import build_stage, parse_recipe

import ldmkit
from ldmkit import CompositionError, PluginError
from ldmkit.models.saving import save_part

KL = {"widths": [4, 4, 4], "norm_groups": 2, "blocks": 1, "z_channels": 2, "mid_attention": "none"}
CODEC = "model.denoiser.config.channels=2"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two codecs that differ in nothing but their scale, and a model trained on the first's latents."""
    folder = tmp_path_factory.mktemp("start")
    torch.manual_seed(0)
    first = ldmkit.get("codec", "kl")({**KL, "scale": 0.5})
    other = ldmkit.get("codec", "kl")({**KL, "scale": 2.0})
    other.load_state_dict(first.state_dict())
    save_part("codec", first, folder / "codec")
    save_part("codec", other, folder / "other")
    tiny.train(tiny.denoiser_recipe(folder / "run", f"model.codec={{from: {folder / 'codec'}}}", CODEC, "steps=1"))
    return folder


def test_the_pipeline_knows_the_latents_that_it_is_trained_on(start: Path, tmp_path: Path) -> None:
    stage = build_stage(tiny.denoiser_recipe(tmp_path, f"model.codec={{from: {start / 'codec'}}}", CODEC), tmp_path)
    loaded = ldmkit.load(start / "run/model")
    assert stage.pipeline.denoiser.latents == loaded.denoiser.latents is not None
    with pytest.raises(CompositionError, match="latents") as caught:
        ldmkit.Pipeline.of(
            codec=ldmkit.load_codec(start / "other"), denoiser=stage.pipeline.denoiser, process=stage.pipeline.process
        )
    assert caught.value.code == "compose.scale-mismatch"


def test_a_denoiser_that_stays_what_it_is_gets_the_latents_that_it_knows(start: Path) -> None:
    """It would be called with latents of four times the size, without a word."""
    spec = json.loads((start / "run/model/pipeline.json").read_text())
    model = {
        "start": str(start / "run"),
        "codec": {"from": str(start / "other")},
        "denoiser": {"type": "unet", "config": spec["denoiser"]["config"], "train": False},
        "conditioners": {"label": {"type": "label"}},
    }
    data = {"stage": "denoiser", **tiny.base(start / "unused"), "model": model, "probe": None}
    with pytest.raises(CompositionError) as caught:
        build_stage(parse_recipe(data), start)
    assert caught.value.code == "compose.scale-mismatch"
    model["codec"] = {"from": str(start / "codec")}
    assert set(build_stage(parse_recipe(data), start).turn.groups()) == {"label"}


def test_one_that_learns_may_learn_others_and_the_plan_says_so(start: Path) -> None:
    data = tiny.denoiser_data(start / "unused", CODEC, f"model.codec={{from: {start / 'other'}}}")
    data["model"]["start"] = str(start / "run")
    with pytest.warns(UserWarning, match="it learns other latents"):
        stage = build_stage(parse_recipe(data), start)
    assert any("it learns other latents" in note for note in stage.notes)
    assert stage.pipeline.denoiser.latents.scale == 2.0


def test_what_is_trained_lies_in_no_file(start: Path) -> None:
    data = tiny.denoiser_data(start / "unused", CODEC)
    data["model"] |= {"start": str(start / "run"), "codec": {"from": str(start / "codec")}}
    stage = build_stage(parse_recipe(data), start)
    before = tiny.tensors(start / "run/model")
    with torch.no_grad():
        for tensor in (*stage.turn.trained.parameters(), *stage.turn.trained.buffers()):
            tensor.zero_()
    tiny.assert_same(before, tiny.tensors(start / "run/model"))


def test_a_part_whose_distribution_is_gone_is_named_with_it(start: Path, tmp_path: Path) -> None:
    """As `ldmkit.load` says it: what to install."""
    path = tmp_path / "model"
    ldmkit.load(start / "run/model", mapped=False).save(path)
    spec = json.loads((path / "pipeline.json").read_text())
    del spec["digest"]
    spec["denoiser"] |= {"type": "gone", "distribution": "ldmkit-gone", "version": "1.2"}
    (path / "pipeline.json").write_text(json.dumps(spec))
    data = {"stage": "denoiser", **tiny.base(tmp_path / "run"), "model": {"start": str(path)}, "probe": None}
    with pytest.raises(PluginError, match="ldmkit-gone"):
        build_stage(parse_recipe(data), tmp_path)
