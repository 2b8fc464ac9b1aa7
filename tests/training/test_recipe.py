"""Recipes: overrides, the schema, and a table of what is wrong with one; each error names the key and what fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny
import yaml
from ldmkit_training.before.recipe import build_stage, overridden, parse_recipe, read_training_recipe, recipes, schema

from ldmkit.cli import main
from ldmkit.errors import LdmkitError, SourceError


class Bad(NamedTuple):
    """A recipe with one fault.

    Args:
        change: the overrides that bring it in, or the text of the whole file.
        words: what the message must hold.
    """

    name: str
    change: tuple[str, ...] | str
    code: str
    words: tuple[str, ...]
    make: Callable[..., dict[str, Any]] = tiny.denoiser_data


TABLE = [
    Bad("misspelt key", ("step=9",), "spec.unknown-key", ("recipe.yaml.step", "did you mean 'steps'?")),
    Bad("misspelt section", ("optimizer.lr=1",), "spec.unknown-key", ("optimizer", "did you mean 'optimiser'?")),
    Bad("misspelt inside", ("optimiser.learning_rate=1",), "spec.unknown-key", ("optimiser.learning_rate", "lr")),
    Bad("deep misspelt", ("data.cache={foldre: x}",), "spec.unknown-key", ("data.cache.foldre", "'folder'")),
    Bad("of another stage", ("probe={}",), "spec.unknown-key", ("probe",), tiny.codec_data),
    Bad("a part's config", ("model.denoiser.config.width=[8]",), "spec.unknown-key", ("width", "'widths'")),
    Bad("a source's config", ("data.train.config.splitt=x",), "spec.unknown-key", ("splitt", "'split'")),
    Bad("an objective's key", ("objective.dropuot={}",), "spec.unknown-key", ("objective.dropuot", "'dropout'")),
    Bad("a schedule's key", ("schedule={type: cosine, warm: 3}",), "spec.unknown-key", ("schedule", "warm")),
    Bad("unknown schedule", ("schedule={type: cosin}",), "spec.invalid", ("schedule", "cosin", "'cosine'")),
    Bad("unknown stage", ("stage=denoizer",), "spec.unknown-stage", ("stage", "did you mean 'denoiser'?")),
    Bad("stage is a list", ("stage=[codec]",), "spec.unknown-stage", ("stage",)),
    Bad("no stage", "out: x\nsteps: 3\n", "spec.missing-key", ("stage", "classifier", "codec", "denoiser")),
    Bad("no data", "stage: codec\nout: x\nsteps: 3\n", "spec.missing-key", ("data",)),
    Bad("no steps", ("steps=null",), "spec.invalid", ("steps", "None")),
    Bad("steps below one", ("steps=0",), "spec.invalid", ("steps", "greater than or equal to 1", "0")),
    Bad("steps are text", ("steps=many",), "spec.invalid", ("steps", "'many'")),
    Bad("rate of zero", ("optimiser.lr=0",), "spec.invalid", ("optimiser.lr", "greater than 0")),
    Bad("rate is infinite", ("optimiser.lr=.inf",), "spec.invalid", ("optimiser.lr", "finite")),
    Bad("betas", ("optimiser.betas=[0.9, 1.0]",), "spec.invalid", ("optimiser.betas[1]", "less than 1")),
    Bad(
        "a rate for no turn",
        ("optimiser.rates={discriminatr: 1}",),
        "spec.unknown-turn",
        ("optimiser.rates.discriminatr", "did you mean 'discriminator'?"),
        tiny.codec_data,
    ),
    Bad("decay of one", ("ema.decay=1",), "spec.invalid", ("ema.decay", "less than 1")),
    Bad("precision", ("precision=bf16",), "spec.invalid", ("precision", "'bfloat16'", "'bf16'")),
    Bad("keep none", ("checkpoints.keep=0",), "spec.invalid", ("checkpoints.keep",)),
    Bad("empty out", ("out=''",), "spec.invalid", ("out", "at least 1 character")),
    Bad("negative seed", ("seed=-1",), "spec.invalid", ("seed", "-1")),
    Bad("unknown source", ("data.train.type=miniwrold",), "plugin.unknown", ("miniwrold", "did you mean 'miniworld'?")),
    Bad("unknown denoiser", ("model.denoiser.type=unnet",), "plugin.unknown", ("unnet", "did you mean 'unet'?")),
    Bad("parts that do not fit", ("model.denoiser.config.channels=4",), "compose.", ("4", "3")),
    Bad("not a whole share", ("accumulate=3",), "spec.batch-split", ("data.batch", "a multiple of 3")),
    Bad("a slot with no size", ("data.size=[16]",), "spec.", ("data.size",)),
    Bad("unknown condition", ("objective.dropout.rates={lable: 0.1}",), "compose.", ("lable", "'label'")),
    Bad("codec not there", ("model.codec={from: nowhere}",), "source.not-found", ("nowhere",)),
    Bad("tracker", ("tracking.to=[tensorbord]",), "input.unknown-tracker", ("tensorbord", "'tensorboard'")),
    Bad("override without value", ("steps",), "input.override", ("'steps'", "key=value")),
    Bad("override below a number", ("seed.x=1",), "input.override", ("'seed' is 3",)),
    Bad("override beyond a list", ("data.size.2=1",), "input.override", ("data.size.2", "0 to 1")),
    Bad("override is no YAML", ("data.size=[1",), "source.yaml-invalid", ("--set data.size", "[1")),
    Bad("no YAML", "stage: codec\nout: [1\nsteps: 3\n", "source.yaml-invalid", ("recipe.yaml", "line 3")),
    Bad("a tab", "stage: codec\n\tout: x\n", "source.yaml-invalid", ("line 2",)),
    Bad("a key twice", "stage: codec\nout: a\nout: b\n", "source.duplicate-key", ("'out'", "line 3")),
    Bad("a list", "- stage\n", "source.yaml-invalid", ("mapping", "list")),
    Bad("a tag", "stage: !!python/name:os.system ''\n", "source.yaml-tag", ("line 1",)),
    Bad("an empty file", "", "source.yaml-invalid", ("recipe.yaml",)),
]


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name.replace(" ", "-"))
def test_bad_recipes(bad: Bad, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At the command line: one line with key and hint, no run that could be mistaken for one, no traceback."""
    path = tmp_path / "recipe.yaml"
    sets: list[str] = []
    if isinstance(bad.change, str):
        path.write_text(bad.change)
    else:
        tiny.write(bad.make(tmp_path / "run"), path)
        sets = [word for change in bad.change for word in ("--set", change)]
    code = main(["train", str(path), *sets])
    out, err = capsys.readouterr()
    assert code in (2, 3, 4) and out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("error ")]
    assert line.startswith(f"error [{bad.code}") and "Traceback" not in err
    assert all(word in line for word in bad.words), line
    if bad.name not in LATE:
        assert not (tmp_path / "run").exists()


LATE = {"not a whole share", "tracker"}
"""Noticed after the run folder was made."""


def test_overrides_are_yaml() -> None:
    data = {"a": {"b": [1, 2]}, "n": None}
    made = overridden(data, ["a.b.1=1e-3", "n.x=[64, 64]", "new={type: sgd}", "a.t=null", "w=1=2"])
    assert made == {"a": {"b": [1, 0.001], "t": None}, "n": {"x": [64, 64]}, "new": {"type": "sgd"}, "w": "1=2"}
    assert data == {"a": {"b": [1, 2]}, "n": None}


def test_a_written_recipe_is_the_recipe(tmp_path: Path) -> None:
    """What a run resolves and writes reads back as the same."""
    for make in (tiny.codec_data, tiny.denoiser_data):
        read = read_training_recipe(tiny.write(make(tmp_path), tmp_path / "r.yaml"))
        (tmp_path / "again.yaml").write_text(yaml.safe_dump(read.model_dump(mode="json"), sort_keys=False))
        assert read_training_recipe(tmp_path / "again.yaml") == read


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == schema()
    assert set(printed["discriminator"]["mapping"]) == set(recipes())
    assert printed["$defs"]["DenoiserRecipe"]["additionalProperties"] is False


def test_a_sample_that_the_model_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(LdmkitError) as caught:
        tiny.train(tiny.denoiser_recipe(tmp_path / "run", "model.conditioners.label.config.names=[snow]"))
    assert caught.value.code == "input.bad-rows"
    assert "[input.unknown-label] validation/1.label" in caught.value.what


def test_a_recipe_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    assert "a recipe is needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "steps=1", "optimiser.lr=0.5"],
        ["--set", "steps=1", "--set", "optimiser.lr=0.5"],
        ["optimiser.lr=0.5", "--set", "steps=1"],
    ],
)
def test_one_set_takes_several_values(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """As `ldmkit sample` reads them; the recipe may stand before or behind."""
    path = str(tiny.write(tiny.denoiser_data(tmp_path / "run"), tmp_path / "r.yaml"))
    for given in ([path, *words], [*words, path]):
        assert main(["train", *given, "--dry-run", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["steps"] == 1
    assert main(["train", path, *words, "optimiser.lr=-1", "--dry-run"]) == 3
    assert "optimiser.lr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [(["steps=1"], "--set steps=1"), (["--set", "steps=1", "other.yaml"], "'other.yaml' is a second recipe")],
)
def test_words_that_mean_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    path = str(tiny.write(tiny.denoiser_data(tmp_path / "run"), tmp_path / "r.yaml"))
    assert main(["train", path, *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"codec": {"from": "runs/codec"}}, "model.codec.from"),
        ({"start": "runs/model"}, "model.start"),
        ({"conditioners": {"label": {"type": "label", "from": "runs/model"}}}, "model.conditioners.label.from"),
    ],
)
def test_a_model_that_is_not_there_yet_is_said_by_its_key_with_one_that_is(
    tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    data = tiny.denoiser_data(tmp_path / "run")
    recipe = parse_recipe({**data, "model": {**data["model"], **change}})
    with pytest.raises(SourceError) as caught:
        build_stage(recipe, tmp_path)
    assert caught.value.where == key and f"--set {key}=miniworld" in str(caught.value.fits)
    (tmp_path / "runs/codec").mkdir(parents=True)
    (tmp_path / "runs/codec/recipe.yaml").touch()
    (tmp_path / "runs/model").symlink_to("codec")
    with pytest.raises(SourceError, match="has saved no model") as caught:
        build_stage(recipe, tmp_path)
    assert caught.value.where == key and f"--set {key}=miniworld" in str(caught.value.fits)


def test_examples_are_valid() -> None:
    paths = sorted((Path(__file__).parents[2] / "examples").rglob("*.yaml"))
    found = [path for path in paths if "stage" in (yaml.safe_load(path.read_text()) or {})]
    assert len(found) >= 2
    assert {read_training_recipe(path).stage for path in found} <= set(recipes())
