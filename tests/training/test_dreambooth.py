"""Prior preservation: class pictures that the model drew itself are trained on beside the data's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_training.before.recipe import Recipe, overridden, parse_recipe
from ldmkit_training.check_command import checked
from ldmkit_training.data.batches import Batches
from ldmkit_training.data.section import open_data
from started import started
from tiny import assert_same, base, tensors, train

import ldmkit
from ldmkit import InputError, SpecError

CLASS = {"text": "a house"}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return started(tmp_path_factory.mktemp("start") / "model")


def recipe(model: Path, out: Path, *overrides: str, **prior: Any) -> Recipe:
    data = {"stage": "dreambooth", **base(out), "model": {"start": str(model)}, "lora": {"rank": 3}, "probe": None}
    data["prior"] = {"inputs": CLASS, "count": 5, "steps": 2, "batch": 2, **prior}
    return parse_recipe(overridden(data, overrides))


def test_class_pictures_are_those_of_the_model_as_it_was(start: Path, tmp_path: Path) -> None:
    """Whatever has been trained since; and each row has one of its own, with its own noise.

    Drawn here all at once, there two by two: float32 rounds sums of other shapes otherwise (1e-7 of values near 3).
    """
    made = recipe(start, tmp_path)
    stage: Any = made.make_stage(Path())
    for parameter in stage.lora.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    batch = Batches(open_data(made.data, Path())[0], made.data, seed=3, names=stage.inputs).at(0)[0]
    known = stage.turn.class_batch(batch)
    want = ldmkit.load(start)(CLASS, size=(16, 16), seeds=[3, 4, 5, 6, 7], steps=2).latents
    assert all(any(torch.allclose(row, one, atol=1e-4) for one in want) for row in known.latents)
    assert len({row.numpy().tobytes() for row in known.latents}) > 1
    assert not torch.equal(known.draws.normal("noise", (2,)), batch.draws.normal("noise", (2,)))


def test_the_loss_is_the_sum_of_both(start: Path, tmp_path: Path) -> None:
    """With the weight on the class pictures'."""
    losses = {}
    for weight in (0.5, 2.0):
        made = recipe(start, tmp_path, weight=weight)
        stage: Any = made.make_stage(Path())
        batch = Batches(open_data(made.data, Path())[0], made.data, seed=3, names=stage.inputs).at(0)[0]
        losses[weight] = stage.turn(batch, 0)
    one, other = losses[0.5], losses[2.0]
    assert float(one.terms["prior"]) == float(other.terms["prior"]) > 0
    assert float(other.total - one.total) == pytest.approx(1.5 * float(one.terms["prior"]), rel=1e-5)


def test_it_trains_resumes_and_checks(start: Path, tmp_path: Path) -> None:
    constant = "schedule.type=constant"
    train(recipe(start, tmp_path / "whole", constant, "precision=bfloat16"))
    train(recipe(start, tmp_path / "pieces", constant, "precision=bfloat16", "steps=3"))
    train(recipe(start, tmp_path / "pieces", constant, "precision=bfloat16"))
    assert_same(tensors(tmp_path / "whole" / "model"), tensors(tmp_path / "pieces" / "model"))
    assert [check for check in checked(recipe(start, tmp_path / "c"), Path()) if not check.passed] == []
    ldmkit.load(start).with_lora(tmp_path / "whole" / "model")


def test_priors_that_make_no_sense(start: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'txet'.*did you mean 'text'"):
        recipe(start, tmp_path, inputs={"txet": "a house"}).make_stage(Path())
    for prior in ({"count": 0}, {"weight": 0}, {"inputs": {}}, {"weight": float("inf")}):
        with pytest.raises(SpecError, match="prior"):
            recipe(start, tmp_path, **prior)
