"""The stage that trains proposers: only the proposer changes, and the pipeline that is saved proposes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_miniworld.vocabulary import LAYOUT_CLASSES
from ldmkit_training.before.recipe import Recipe, overridden, parse_recipe
from ldmkit_training.check_command import checked
from ldmkit_training.data.batches import validation_batches
from ldmkit_training.data.section import open_data
from tiny import base, tensors, train

import ldmkit
from ldmkit import Batch, CompositionError, Draws, InputError, SourceError, SpecError, WeightsError

BOXES = {"n_classes": len(LAYOUT_CLASSES), "dim": 8, "frequencies": 2, "max_objects": 8, "names": list(LAYOUT_CLASSES)}
WORDS = {"vocab_size": 192, "start": 2, "end": 3, "pad": 0}
TEXT = {**WORDS, "dim": 8, "layers": 1, "heads": 2, "head_dim": 4, "max_length": 32}
PROPOSER = {"vocab_size": 192, "pad": 0, "length": 32, "bins": 16, "width": 16, "layers": 1, "heads": 2}
VOCABULARY = "ldmkit_miniworld:vocabulary_files"


def text_and_boxes(out: Path, *overrides: str) -> Recipe:
    unet = {"channels": 3, "widths": [8, 16], "blocks": 1, "norm_groups": 4, "heads": 2}
    unet |= {"attention": ["none", "cross"], "context_dim": 8, "context_join": "length"}
    model = {
        "codec": {"type": "identity"},
        "denoiser": {"type": "unet", "config": unet},
        "process": {"type": "discrete"},
        "conditioners": {
            "text": {"type": "ldm-text", "assets": VOCABULARY, "config": TEXT},
            "layout": {"type": "layout-boxes", "config": BOXES},
        },
        "defaults": {"size": [16, 16], "steps": 2},
    }
    data = {"stage": "denoiser", **base(out), "steps": 1, "model": model, "probe": None}
    return parse_recipe(overridden(data, overrides))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of text and boxes after one step."""
    out = tmp_path_factory.mktemp("start") / "run"
    train(text_and_boxes(out))
    return out / "model"


def recipe(start: Path, out: Path, **model: Any) -> Recipe:
    section = {
        "start": str(start),
        "conditioner": "layout",
        "type": "layout-proposed",
        "assets": VOCABULARY,
        "config": {**BOXES, "proposer": PROPOSER},
        **model,
    }
    return parse_recipe({"stage": "proposer", **base(out), "model": section})


def test_only_the_proposer_is_trained_and_the_rest_is_saved_as_it_was(start: Path, tmp_path: Path) -> None:
    train(recipe(start, tmp_path / "run"))
    before, after = tensors(start), tensors(tmp_path / "run" / "model")
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    new = set(after) - set(before)
    assert new and all("language." in name for name in new)
    with pytest.raises(SourceError, match="run/model, which contains a model"):
        ldmkit.load(tmp_path / "run")
    pipe = ldmkit.load(tmp_path / "run" / "model")
    made = pipe({"text": "two trees and a red house"}, seeds=[0]).recipes[0]
    assert "proposed" in made and made["parts"]["conditioners.layout"].startswith("layout-proposed @ ldmkit")


def test_a_proposer_goes_on_from_another_run(start: Path, tmp_path: Path) -> None:
    train(recipe(start, tmp_path / "one"))
    second = recipe(tmp_path / "one" / "model", tmp_path / "two", type=None, config={})
    outcome = train(second)
    assert outcome.step == 6
    one, two = tensors(tmp_path / "one" / "model"), tensors(tmp_path / "two" / "model")
    changed = {name for name in one if not torch.equal(one[name], two[name])}
    assert changed and all("language." in name for name in changed)


def test_an_input_of_another_name(tmp_path: Path) -> None:
    renamed = ("model.conditioners.layout.input=boxes", "data.inputs.layout=boxes")
    train(text_and_boxes(tmp_path / "start", *renamed))
    data = overridden(recipe(tmp_path / "start", tmp_path / "run").model_dump(mode="json"), renamed[1:])
    train(parse_recipe(data))
    pipe = ldmkit.load(tmp_path / "run" / "model")
    assert list(pipe({"text": "a tree"}, seeds=[0]).recipes[0]["proposed"]) == ["boxes"]


def test_validation_is_the_mean_over_rows(start: Path, tmp_path: Path) -> None:
    stage = recipe(start, tmp_path / "run").make_stage(Path())
    data = recipe(start, tmp_path / "run").data
    _, held = open_data(data, Path())
    assert held is not None
    whole = stage.validate(validation_batches(held, data, 4, names=stage.inputs, batch=4))
    parts = stage.validate(validation_batches(held, data, 4, names=stage.inputs, batch=3))
    assert whole["loss"] == pytest.approx(parts["loss"], rel=1e-5)
    assert whole["loss"] == pytest.approx(whole["labels"] + whole["places"], rel=1e-6)


def test_the_self_check_passes(start: Path, tmp_path: Path) -> None:
    checks = checked(recipe(start, tmp_path / "run"), Path())
    assert [check for check in checks if not check.passed] == []
    assert any(check.name == "reach: proposer, proposal" for check in checks)


def test_errors_say_what_would_fit(start: Path, tmp_path: Path) -> None:
    with pytest.raises(CompositionError, match=r"no conditioner 'layuot'.*layout"):
        recipe(start, tmp_path, conditioner="layuot").make_stage(Path())
    with pytest.raises(CompositionError, match="LdmText has no proposer"):
        recipe(start, tmp_path, conditioner="text", type=None, config={}, assets=None).make_stage(Path())
    with pytest.raises(SpecError, match="a config, but no type"):
        recipe(start, tmp_path, type=None)
    with pytest.raises(WeightsError, match="cannot take over the weights"):
        recipe(start, tmp_path, config={**BOXES, "dim": 16, "proposer": PROPOSER}).make_stage(Path())


def test_a_sample_without_boxes_is_named(start: Path, tmp_path: Path) -> None:
    stage = recipe(start, tmp_path / "run").make_stage(Path())
    batch = Batch(("a.png",), None, None, None, [{"text": "a tree"}], (16, 16), Draws(0, 0, (0,)))
    with pytest.raises(InputError, match=r"a\.png.*no 'layout'"):
        stage.turns["proposer"](batch, 0)
    batch = Batch(("b.png",), None, None, None, [{"layout": []}], (16, 16), Draws(0, 0, (0,)))
    with pytest.raises(InputError, match=r"text"):
        stage.turns["proposer"](batch, 0)
