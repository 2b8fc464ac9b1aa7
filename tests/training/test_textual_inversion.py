"""The stage that trains a token: its vectors alone learn, and the file teaches the pipeline the word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_training.before.recipe import Recipe, overridden, parse_recipe
from ldmkit_training.check_command import checked
from ldmkit_training.loop.engine import Engine
from PIL import Image
from safetensors.torch import load_file
from started import started
from tiny import assert_same, base, tensors, train

import ldmkit
from ldmkit import CompositionError, InputError, SpecError

TEXTS = ("a <plum> house", "two <plum> boats by a lake", "a <Plum> car", "a house")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return started(tmp_path_factory.mktemp("start") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    lines = []
    for i, text in enumerate(TEXTS):
        Image.new("RGB", (16, 16), (120, 20 * i, 140)).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def recipe(model: Path, data: Path, out: Path, *overrides: str, **token: Any) -> Recipe:
    made = {"stage": "textual-inversion", **base(out), "model": {"start": str(model)}, "probe": None}
    made["token"] = {"word": "<plum>", **token}
    made["data"] = {"train": {"type": "folder", "config": {"folder": str(data)}}, "size": [16, 16], "batch": 4}
    made["validation"] = None
    return parse_recipe(overridden(made, overrides))


def drawn(pipe: ldmkit.Pipeline, text: str) -> torch.Tensor:
    return pipe({"text": text}, steps=2, seeds=[3], guidance=2.0).latents


@pytest.mark.parametrize("token", [{}, {"vectors": 3, "init": "red"}, {"vectors": 2, "layout": "a1111"}])
def test_the_file_teaches_what_was_learnt(start: Path, data: Path, tmp_path: Path, token: dict[str, Any]) -> None:
    """All but the word draws what it drew, bit for bit; the word draws what the trained pipeline draws."""
    engine = Engine(recipe(start, data, tmp_path / "run", **token), Path())
    stage: Any = engine.stage
    plain = ldmkit.load(start)
    assert torch.equal(drawn(stage.pipeline, "a red house"), drawn(plain, "a red house"))
    first = drawn(stage.pipeline, "a <plum> house")
    outcome = engine.run()
    assert outcome.model is not None
    (key,) = load_file(outcome.model / "learned_embeds.safetensors")
    assert key == ("emb_params" if token.get("layout") == "a1111" else "<plum>")
    with engine.averaged():
        want = drawn(stage.pipeline, "a <plum> house")
        assert torch.equal(drawn(stage.pipeline, "a red house"), drawn(plain, "a red house"))
    assert not torch.equal(want, first)
    taught = plain.with_embedding(outcome.model, token="<plum>")
    assert torch.equal(drawn(taught, "a <plum> house"), want)
    again = ldmkit.load(taught.save(tmp_path / "taught"))
    assert torch.equal(drawn(again, "a <plum> house"), want)


def test_a_word_to_start_from(start: Path, data: Path, tmp_path: Path) -> None:
    stage: Any = recipe(start, data, tmp_path, init="red").make_stage(Path())
    assert torch.equal(drawn(stage.pipeline, "a <plum> house"), drawn(ldmkit.load(start), "a red house"))
    assert sum(p.numel() for turn in stage.turns.values() for p in turn.parameters()) == 8


def test_the_base_stays_and_a_run_goes_on(start: Path, data: Path, tmp_path: Path) -> None:
    before = tensors(start)
    train(recipe(start, data, tmp_path / "whole", "schedule.type=constant", "previews.count=1", "previews.steps=1"))
    train(recipe(start, data, tmp_path / "pieces", "schedule.type=constant", "steps=3"))
    train(recipe(start, data, tmp_path / "pieces", "schedule.type=constant"))
    assert_same(tensors(tmp_path / "whole" / "model"), tensors(tmp_path / "pieces" / "model"))
    assert_same(before, tensors(start))


def test_the_self_check(start: Path, data: Path, tmp_path: Path) -> None:
    checks = checked(recipe(start, data, tmp_path / "run"), Path())
    assert [check for check in checks if not check.passed] == []


def test_texts_without_the_token_are_counted_however_a_batch_is_shared_out(
    start: Path, data: Path, tmp_path: Path
) -> None:
    """One of the four texts has none: parts of one row train as the whole batch does."""
    with pytest.warns(UserWarning, match=r"1 of 4 samples have no '<plum>' where .*: '3.png' \("):
        train(recipe(start, data, tmp_path / "whole"))
    train(recipe(start, data, tmp_path / "parts", "accumulate=4"))
    one, other = tensors(tmp_path / "whole" / "model"), tensors(tmp_path / "parts" / "model")
    for name, vectors in one.items():
        # float32 sums in another order, through six steps of Adam
        torch.testing.assert_close(vectors, other[name], rtol=0, atol=1e-5)


def test_a_token_behind_what_is_read_is_none(start: Path, data: Path, tmp_path: Path) -> None:
    behind = ["data.captions.text.prefix='" + "a house " * 40 + "'"]
    with pytest.raises(InputError, match="no text of the data has '<plum>'"):
        Engine(recipe(start, data, tmp_path / "run", *behind), Path())
    train(recipe(start, data, tmp_path / "run", "data.captions.text.prefix='<plum> '"))


def test_all_texts_may_be_dropped(start: Path, data: Path, tmp_path: Path) -> None:
    assert train(recipe(start, data, tmp_path / "run", "objective.dropout.none=0.9")).step == 6


@pytest.mark.parametrize(
    ("token", "error", "said"),
    [
        ({"word": "house"}, InputError, "'house' is already in the vocabulary"),
        ({"init": "red house"}, InputError, "is 2 tokens.*1 vectors"),
        ({"vectors": 0}, SpecError, "vectors"),
        ({"word": ""}, SpecError, "word"),
        ({"word": "<lilac>"}, InputError, "no text of the data has '<lilac>' where it is read"),
    ],
)
def test_tokens_that_make_no_sense(
    start: Path, data: Path, tmp_path: Path, token: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        Engine(recipe(start, data, tmp_path / "run", **token), Path())


def test_a_model_without_texts(class_pipe: ldmkit.Pipeline, data: Path, tmp_path: Path) -> None:
    class_pipe.save(tmp_path / "classes")
    with pytest.raises(CompositionError, match="no text encoder that learns tokens"):
        recipe(tmp_path / "classes", data, tmp_path / "run").make_stage(Path())
