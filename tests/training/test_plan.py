"""The plan of a run says what the run would do; its numbers are counted by other means here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import yaml
from ldmkit_miniworld.vocabulary import CLASSES
from ldmkit_training.before.plan import make_plan
from ldmkit_training.before.plan_table import lines, mebibytes, show
from ldmkit_training.before.recipe import build_stage, parse_recipe
from ldmkit_training.check_command import checked

from ldmkit.cli import main
from ldmkit.errors import CompositionError, LdmkitError

DROPPED = "objective.dropout={rates: {label: 0.25}}"


def test_a_denoisers_plan(tmp_path: Path) -> None:
    recipe = tiny.denoiser_recipe(tmp_path / "run", DROPPED)
    plan = make_plan(recipe, tmp_path)
    stage = build_stage(recipe, tmp_path)
    parts = {part.name: part for part in plan.parts}
    count = sum(p.numel() for p in stage.pipeline.denoiser.parameters())
    assert (parts["denoiser"].type, parts["denoiser"].trained, parts["denoiser"].frozen) == ("unet", count, 0)
    assert parts["label"].trained == stage.pipeline.conditioners["label"].embedding.weight.numel()
    (wire,) = plan.wiring
    assert (wire.conditioner, wire.type, wire.input, wire.kind, wire.dim) == ("label", "label", "label", "tokens", 8)
    assert (wire.slot, wire.shape, wire.dropped, wire.given) == ("context", (4, 1, 8), 0.25, True)
    assert plan.shapes == {"pictures": (4, 3, 16, 16), "latents": (4, 3, 16, 16)}
    assert plan.used == {"label": "label"} and {"text", "layout", "semantic"} <= set(plan.unused)
    assert (plan.samples, plan.held_out, plan.steps, plan.batch, plan.epochs) == (24, 4, 6, 4, 1.0)
    trained = count + parts["label"].trained
    assert plan.memory["weights"] == plan.memory["gradients"] == plan.memory["average"] == 4 * trained
    assert plan.memory["optimiser"] == 8 * trained and plan.memory["batch"] == 4 * 3 * 16 * 16 * 4
    assert plan.memory["total"] == sum(size for name, size in plan.memory.items() if name != "total")
    assert plan.seconds["step"] > 0 and plan.seconds["run"] >= 6 * plan.seconds["step"]
    assert list(tmp_path.iterdir()) == []


def test_activations_grow_with_the_rows_of_a_part(tmp_path: Path) -> None:
    whole = make_plan(tiny.denoiser_recipe(tmp_path, DROPPED), tmp_path)
    halves = make_plan(tiny.denoiser_recipe(tmp_path, DROPPED, "accumulate=2"), tmp_path)
    assert (halves.rows, halves.batch, halves.accumulate) == (2, 4, 2)
    assert halves.memory["activations"] == pytest.approx(whole.memory["activations"] / 2, rel=0.1)
    assert halves.memory["weights"] == whole.memory["weights"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.conditioners.label.null=default", "its own, trained"),
        ("model.conditioners.label.null=zero", "zeros"),
        ("model.conditioners.label.null=keep", "never left out"),
        ("model.conditioners.label.train=false", "its own"),
        ("model.conditioners.label.config={n_classes: 6, dim: 8, zero_null: true, names: NAMES}", "zeros"),
        ("model.conditioners.label.config={n_classes: 6, dim: 8, names: NAMES}", "none: it is required"),
    ],
)
def test_the_plan_says_what_a_null_is(tmp_path: Path, override: str, words: str) -> None:
    (wire,) = make_plan(
        tiny.denoiser_recipe(tmp_path, "objective={}", override.replace("NAMES", str(list(CLASSES)))), tmp_path
    ).wiring
    assert wire.null == words


def test_a_codecs_plan_has_its_discriminator_and_what_it_only_reads(tmp_path: Path) -> None:
    plan = make_plan(tiny.codec_recipe(tmp_path), tmp_path)
    parts = {part.name: part for part in plan.parts}
    assert parts["codec"].type == "kl" and parts["codec"].trained > 0
    assert parts["discriminator"].trained > 0 and parts["perceptual"].trained == 0
    assert plan.shapes == {"pictures": (4, 3, 16, 16), "latents": (4, 2, 4, 4)}
    assert plan.wiring == [] and plan.used == {}


def test_a_classifier_is_planned_and_checked(tmp_path: Path) -> None:
    unet = {"channels": 3, "widths": [8, 16], "blocks": 1, "norm_groups": 4, "attention": ["none", "none"], "heads": 2}
    data = tiny.base(tmp_path / "run") | {"stage": "classifier"}
    data["model"] = {
        "codec": {"type": "identity"},
        "config": {"unet": unet, "classes": len(CLASSES), "names": list(CLASSES)},
    }
    recipe = parse_recipe(data)
    plan = make_plan(recipe, tmp_path)
    assert [part.name for part in plan.parts] == ["codec", "classifier"] and plan.used == {"label": "label"}
    assert all(check.passed for check in checked(recipe, tmp_path))


def test_a_condition_that_the_data_do_not_give_is_shouted_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.denoiser_recipe(tmp_path, "model.conditioners.label.input=kind", "objective.dropout={rates: {}}")
    with pytest.warns(UserWarning, match="the data have no input 'kind'"):
        plan = make_plan(recipe, tmp_path)
    assert not plan.wiring[0].given and "label" in plan.unused
    show(plan)
    assert "NO" in capsys.readouterr().out


def test_the_command_prints_tables_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny.denoiser_data(tmp_path / "run", DROPPED)))
    assert main(["train", str(path), "--dry-run"]) == 0
    text = capsys.readouterr().out
    for words in (
        "parameters",
        "conditions",
        "24 samples, 4 held out",
        "left out:",
        "4x3x16x16",
        "6 steps",
        "a step on",
    ):
        assert words in text
    assert main(["train", str(path), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["wiring"][0]["slot"] == "context"
    assert not (tmp_path / "run").exists()


def test_what_a_run_would_refuse_the_plan_refuses(tmp_path: Path) -> None:
    recipe = tiny.denoiser_recipe(tmp_path, "model.denoiser.config.context_dim=16")
    with pytest.raises(CompositionError, match="dim"):
        make_plan(recipe, tmp_path)
    with pytest.raises(LdmkitError):
        make_plan(tiny.denoiser_recipe(tmp_path, "data.batch=5", "accumulate=2"), tmp_path)


def test_lines_for_people(tmp_path: Path) -> None:
    plan = make_plan(tiny.denoiser_recipe(tmp_path, DROPPED, "accumulate=2"), tmp_path)
    text = "\n".join(lines(plan))
    assert "batch    4 rows, 2 parts of 2 rows: pictures 2x3x16x16" in text
    assert "length   6 steps, 24 samples, 1 epochs" in text
    assert mebibytes(2**30 * 3 // 2) == "1.50 GiB" and mebibytes(2**19) == "0.5 MiB"
