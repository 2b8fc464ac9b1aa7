"""Keys without effect in the recipes of what is trained beside a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ldmkit_training.before.case import Case
from ldmkit_training.before.recipe import overridden, parse_recipe
from ldmkit_training.before.without_effect import without_effect
from ldmkit_training.data.section import open_data
from ldmkit_training.stages.ip_adapter.example import write_encoder
from started import pipeline, started
from tiny import base, train

LORA = {"stage": "lora", "lora": {"rank": 2}}
CONTROL = {"stage": "controlnet", "controlnet": {}}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return started(tmp_path_factory.mktemp("start") / "model")


def data_of(model: Path, out: Path, stage: dict[str, Any], *overrides: str) -> dict[str, Any]:
    return overridden({**base(out), "model": {"start": str(model)}, "probe": None, **stage}, overrides)


def said(data: dict[str, Any]) -> list[str]:
    recipe = parse_recipe(data)
    case = Case.of(recipe, recipe.make_stage(Path()), *open_data(recipe.data, Path()), 1)
    return [line.partition(": ")[0] for line in without_effect(case)]


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ((), []),
        (("objective.dropout.rates.text=0.1",), []),
        (("data.extract={hint: {type: canny}}",), ["data.extract.hint"]),
        (("objective.simple=0", "objective.elbo=1", "objective.weighting={type: min-snr}"), ["objective.weighting"]),
        (("objective.dropout={all: 1, rates: {text: 0.1}}",), ["objective.dropout.rates"]),
        (("optimiser={type: prodigy, lr: 1.0e-4}",), ["optimiser.lr"]),
        (("optimiser={type: prodigy, lr: 0.5}",), []),
        (("objective.dropout.rates.layout=0.1", "data.inputs={layout: boxes}"), ["objective.dropout.rates.layout"]),
    ],
)
def test_a_lora(start: Path, tmp_path: Path, overrides: tuple[str, ...], keys: list[str]) -> None:
    assert said(data_of(start, tmp_path, LORA, *overrides)) == keys


def test_a_controlnet_that_goes_on_has_its_own_shape(start: Path, tmp_path: Path) -> None:
    extract = "data.extract={hint: {type: canny}}"
    new = data_of(start, tmp_path / "one", CONTROL, extract, "controlnet.channels=3", "controlnet.widths=[4]")
    assert said(new) == []
    train(parse_recipe({**new, "steps": 1, "validation": None, "checkpoints": {"every": 1}}))
    again = overridden({**new, "out": str(tmp_path / "two")}, (f"controlnet.start={tmp_path / 'one'}",))
    assert said(again) == ["controlnet.channels", "controlnet.widths"]


def test_texts_that_are_never_dropped(start: Path, tmp_path: Path) -> None:
    kept = {name: {"null": "keep"} for name in ("text", "layout")}
    never = pipeline().with_(wiring=kept).save(tmp_path / "never")
    write_encoder(tmp_path / "encoder")
    stage = {"stage": "ip-adapter", "ip_adapter": {"encoder": str(tmp_path / "encoder"), "drop": {"text": 0.1}}}
    extract = "data.extract={ip-image: {type: tile}}"
    assert said(data_of(start, tmp_path / "run", stage, extract)) == []
    assert said(data_of(never, tmp_path / "run", stage, extract)) == ["ip_adapter.drop.text"]
