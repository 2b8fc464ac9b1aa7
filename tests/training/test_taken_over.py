"""Weights that a recipe takes over keep their meaning, or the recipe is refused or warned of; resuming notices too.

Shapes alone are equal in every case here: what differs is what an index, a head, a word or a prediction stands for.
"""

from __future__ import annotations

import json
import random
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import tiny
from ldmkit_miniworld.vocabulary import CLASSES
from ldmkit_training.before.recipe import Recipe, build_stage, overridden, parse_recipe
from ldmkit_training.loop import checkpoints
from ldmkit_training.stages.taken_over import config_differences

import ldmkit
from ldmkit import CompositionError, Pipeline, SpecError

TEXT = {"vocab_size": 192, "dim": 8, "layers": 1, "heads": 2, "head_dim": 4, "max_length": 8, "start": 2, "end": 3}
VOCABULARY = Path(str(files("ldmkit_miniworld"))) / "vocabulary_files"
SWAPPED = [CLASSES[1], CLASSES[0], *CLASSES[2:]]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of classes and text, with the miniworld's vocabulary."""
    folder = tmp_path_factory.mktemp("start")
    recipe = tiny.denoiser_recipe(folder / "run", text(VOCABULARY), "steps=1")
    tiny.train(recipe)
    return folder / "run"


def text(assets: Path, train: bool = True) -> str:
    section = {"type": "ldm-text", "config": TEXT, "assets": str(assets), "train": train}
    return f"model.conditioners.text={json.dumps(section)}"


def shuffled(folder: Path) -> Path:
    """The same words behind other numbers."""
    words = (VOCABULARY / "vocab.txt").read_text().split("\n")
    body = words[4:-1]
    random.Random(0).shuffle(body)
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join([*words[:4], *body, words[-1]]))
    return folder


def recipe_from(start: Path, *overrides: str) -> Recipe:
    data = tiny.denoiser_data(start / "unused", text(VOCABULARY), *overrides)
    data["model"]["start"] = str(start)
    return parse_recipe(data)


LEARNS: dict[str, tuple[str, str]] = {
    "heads": ("model.denoiser.config.heads=4", r"model\.denoiser: .*config\.heads was 2, it is 4 here"),
    "groups": ("model.denoiser.config.norm_groups=2", r"config\.norm_groups was 4, it is 2 here"),
    "prediction": ("model.process.config.prediction=eps", r"model\.process: .*config\.prediction was 'v', it is 'eps'"),
    "schedule": ("model.process.config.zero_terminal_snr=true", r"config\.zero_terminal_snr was False, it is True"),
    "process": ("model.process={type: flow}", r"model\.process: .*type was 'discrete', it is 'flow' here"),
    "null class": ("model.conditioners.label.config.null_class=0", rf"config\.null_class was {len(CLASSES)}, it is 0"),
    "null": ("model.conditioners.label.null=zero", r"model\.conditioners\.label: .*null was 'default', it is 'zero'"),
}


@pytest.mark.parametrize("how", LEARNS)
def test_what_learns_may_learn_another_meaning_and_both_are_said(start: Path, how: str) -> None:
    override, wanted = LEARNS[how]
    with pytest.warns(UserWarning, match=wanted) as caught:
        stage = build_stage(recipe_from(start, override), start)
    said = [str(warning.message) for warning in caught]
    assert len(said) == 1 and said[0] in stage.notes, said


FROZEN: dict[str, list[str]] = {
    "heads": ["model.denoiser.train=false", "model.denoiser.config.heads=4"],
    "prediction": ["model.denoiser.train=false", "model.process.config.prediction=eps"],
    "null class": ["model.conditioners.label.train=false", "model.conditioners.label.config.null_class=0"],
    "null": ["model.denoiser.train=false", "model.conditioners.label.null=zero"],
    "no names": ["model.conditioners.label.train=false", "model.conditioners.label.config.names=[]"],
    "heads of a text": ["model.conditioners.text.train=false", "model.conditioners.text.config.heads=1",
                        "model.conditioners.text.config.head_dim=8"],
}  # fmt: skip


@pytest.mark.parametrize("how", FROZEN)
def test_what_is_frozen_keeps_its_meaning(start: Path, how: str) -> None:
    with pytest.raises(CompositionError) as caught:
        build_stage(recipe_from(start, *FROZEN[how]), start)
    assert caught.value.code == "compose.other-meaning" and str(start) in caught.value.what


def test_the_same_meaning_is_taken_over_without_a_word(start: Path, recwarn: pytest.WarningsRecorder) -> None:
    spelt_out = "model.denoiser.config.dropout=0.0"  # the default, which the start's config has too
    build_stage(recipe_from(start, spelt_out), start)
    build_stage(recipe_from(start, "model.conditioners.label.train=false"), start)
    assert not recwarn.list, [str(warning.message) for warning in recwarn.list]


@pytest.mark.parametrize("train", ["true", "false"])
def test_names_that_change_places_are_refused_whether_they_learn_or_not(start: Path, train: str) -> None:
    names = f"model.conditioners.label.config.names={json.dumps(SWAPPED)}"
    with pytest.raises(CompositionError, match=repr(CLASSES[0])) as caught:
        build_stage(recipe_from(start, names, f"model.conditioners.label.train={train}"), start)
    assert caught.value.code == "compose.names-moved"
    assert caught.value.where == "model.conditioners.label.config.names"


def test_new_names_in_the_place_of_old_ones_are_another_meaning_that_may_be_learnt(start: Path) -> None:
    names = f"model.conditioners.label.config.names={json.dumps(['zebra', *CLASSES[1:]])}"
    with pytest.warns(UserWarning, match="zebra"):
        build_stage(recipe_from(start, names), start)


def test_another_vocabulary_is_refused_for_frozen_words_and_said_of_those_that_learn(
    start: Path, tmp_path: Path
) -> None:
    other = shuffled(tmp_path / "other")
    with pytest.raises(CompositionError, match=r"assets: tokenizer\.json") as caught:
        build_stage(recipe_from(start, text(other, train=False)), start)
    assert caught.value.code == "compose.other-meaning"
    with pytest.warns(UserWarning, match=r"model\.conditioners\.text: .*assets: tokenizer\.json"):
        build_stage(recipe_from(start, text(other)), start)


def test_a_run_does_not_go_on_with_another_vocabulary(tmp_path: Path) -> None:
    assets = tmp_path / "words"
    assets.mkdir()
    (assets / "vocab.txt").write_bytes((VOCABULARY / "vocab.txt").read_bytes())
    recipe = tiny.denoiser_recipe(tmp_path / "run", text(assets), "steps=2")
    tiny.train(recipe)
    (assets / "vocab.txt").write_bytes((shuffled(tmp_path / "other") / "vocab.txt").read_bytes())
    with pytest.raises(SpecError, match=r"conditioners\.text assets: tokenizer\.json") as caught:
        tiny.train(recipe)
    assert caught.value.code == "spec.other-parts"


def test_a_run_does_not_go_on_with_another_process_of_its_start(start: Path, tmp_path: Path) -> None:
    """The recipe leaves the process to the start, which is saved anew with another."""
    model, old = tmp_path / "model", ldmkit.load(start / "model", mapped=False)
    old.save(model)
    data: dict[str, Any] = {"stage": "denoiser", **tiny.base(tmp_path / "run"), "probe": None, "previews": None}
    recipe = parse_recipe(overridden(data | {"model": {"start": str(model)}}, ["steps=2"]))
    tiny.train(recipe)
    eps = old.process.model_copy(update={"prediction": "eps"})
    conditioners = {"conditioners": old.conditioners, "wiring": old.wiring}
    Pipeline.of(codec=old.codec, denoiser=old.denoiser, process=eps, **conditioners).save(model)
    with pytest.raises(SpecError, match=r"process\.config\.prediction was 'v', it is 'eps' here") as caught:
        tiny.train(recipe)
    assert caught.value.code == "spec.other-parts"


def test_a_run_of_an_older_version_goes_on(tmp_path: Path) -> None:
    """Its checkpoints say nothing of parts."""
    whole, again = tmp_path / "whole", tmp_path / "again"
    tiny.train(tiny.denoiser_recipe(whole, "steps=4"))
    tiny.train(tiny.denoiser_recipe(again, "steps=4"))
    kept = again / "checkpoints"
    for folder in list(kept.iterdir()):
        found = checkpoints.read(folder)
        del found.state["parts"]
        shutil.rmtree(folder)
        checkpoints.write(kept, found, keep=2)
    tiny.train(tiny.denoiser_recipe(again, "steps=4"))
    tiny.assert_same(tiny.tensors(whole / "model"), tiny.tensors(again / "model"))


def test_a_codec_and_a_decoder_on_fixed_latents(tmp_path: Path) -> None:
    tiny.train(tiny.codec_recipe(tmp_path / "codec", "steps=1"))
    data = tiny.codec_data(tmp_path / "next", "model.config.norm_groups=1", "objective.statistics=none")
    data["model"]["start"] = str(tmp_path / "codec")
    trained = ldmkit.load_codec(tmp_path / "codec/model").config
    data["model"]["config"] |= {"scale": trained.scale, "shift": trained.shift}
    with pytest.warns(UserWarning, match=r"config\.norm_groups was 2, it is 1 here$"):
        build_stage(parse_recipe(data), tmp_path)
    data["model"]["train"] = "decoder"
    with pytest.raises(CompositionError) as caught:
        build_stage(parse_recipe(data), tmp_path)
    assert caught.value.code == "compose.other-meaning"
    data["model"]["config"] |= {"norm_groups": 2, "scale": 1.0}  # the latents would have another scale
    with pytest.raises(CompositionError, match=r"config\.scale"):
        build_stage(parse_recipe(data), tmp_path)


def test_a_classifier(tmp_path: Path) -> None:
    unet = {"channels": 3, "widths": [8, 16], "blocks": 1, "norm_groups": 4, "heads": 2, "attention": ["none", "none"]}
    config = {"classes": len(CLASSES), "names": list(CLASSES), "unet": unet}
    model = {"codec": {"type": "identity"}, "config": config}
    data = {"stage": "classifier", **tiny.base(tmp_path / "run"), "model": model, "previews": None}
    tiny.train(parse_recipe(data | {"steps": 1}))
    model["start"] = str(tmp_path / "run")
    model["config"] = config | {"names": SWAPPED}
    with pytest.raises(CompositionError) as caught:
        build_stage(parse_recipe(data), tmp_path)
    assert caught.value.code == "compose.names-moved"
    model["config"] = config | {"unet": unet | {"norm_groups": 2}}
    with pytest.warns(UserWarning, match=r"config\.unet\.norm_groups was 4, it is 2 here"):
        build_stage(parse_recipe(data), tmp_path)


def test_differences_field_by_field() -> None:
    was = {"a": 1, "b": [1, 2], "inner": {"type": "x", "version": "1", "config": {"c": 1.0}}, "old": 1}
    now = {"a": 1, "b": [2, 1], "inner": {"type": "x", "version": "2", "config": {"c": 2.0}}, "new": 1}
    found = list(config_differences(was, now))
    assert [(d.key, d.was, d.now, d.moved) for d in found] == [
        ("config.b", [1, 2], [2, 1], None), ("config.inner.config.c", 1.0, 2.0, None)
    ]  # fmt: skip
    moved = list(config_differences({"names": ["a", "b"]}, {"names": ["c", "a"]}))
    assert [d.moved for d in moved] == ["a"]
    assert [d.moved for d in config_differences({"names": ["a", "b"]}, {"names": ["a", "c", "d"]})] == [None]
