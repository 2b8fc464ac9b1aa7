"""A model's defaults that it was distilled for: asking for something else is drawn, with a warning."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch

import ldmkit
from ldmkit.cli import main
from ldmkit.errors import DrawingWarning
from ldmkit.replaying import replay

LOCKED = {"steps": 4, "guidance": {"type": "none"}, "locked": ["steps", "guidance"], "size": (32, 32)}


def distilled() -> ldmkit.Pipeline:
    return tiny_parts.class_pipeline(**LOCKED)


@pytest.mark.parametrize(("asked", "words"), [
    ({"steps": 3}, "steps: the model was distilled for 4"),
    ({"guidance": 2.0}, "guidance: the model was distilled for none"),
])  # fmt: skip
def test_another_argument_is_warned_of(asked: dict[str, Any], words: str) -> None:
    with pytest.warns(DrawingWarning, match=words):
        distilled()({"label": 1}, **asked)


def test_the_models_own_is_not() -> None:
    pipe = distilled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_default = pipe({"label": 1})
        asked = pipe({"label": 1}, steps=4, guidance="none", sampler="euler")  # the sampler is not locked
        again = replay(pipe, by_default.recipes[0])
    assert asked.images.shape == again.images.shape and torch.equal(by_default.images, again.images)


def test_locks_are_saved_and_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = distilled().save(tmp_path / "model")
    assert ldmkit.load(folder).defaults.locked == ("steps", "guidance")
    assert main(["sample", str(folder), "--label", "1", "--steps", "2", "--out", str(tmp_path / "a.png")]) == 0
    assert "warning: steps: the model was distilled for 4" in capsys.readouterr().err


def test_without_locks_a_spec_is_as_it_was() -> None:
    assert "locked" not in str(tiny_parts.class_pipeline().spec.to_json())


def test_only_what_can_be_locked() -> None:
    with pytest.raises(ldmkit.SpecError, match=r"defaults\.locked"):
        tiny_parts.class_pipeline(locked=["size"])


@pytest.mark.parametrize("sampler", ["lcm", "tcd"])
def test_samplers_of_distilled_models(sampler: str) -> None:
    with pytest.warns(DrawingWarning, match=f"'{sampler}' .* networks distilled for a few steps, but this model"):
        tiny_parts.class_pipeline().prepare({"label": 1}, sampler=sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_parts.class_pipeline(sampler={"type": "lcm"}).prepare({"label": 1}, sampler=sampler)
        distilled().prepare({"label": 1}, sampler=sampler)
