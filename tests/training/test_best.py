"""The model of the best validation: which it is, that it loads, and that a run which goes on has the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from ldmkit_training.loop import engine as engine_module
from ldmkit_training.loop.best import Best, BestSection

import ldmkit
from ldmkit import SpecError

WATCHED = ("steps=8", "validation={every: 2, count: 4}", "checkpoints={every: 2, keep: 4, best: {figure: loss}}")


def figures(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["validation/loss"] for line in lines if "validation/loss" in line}


def test_of_equal_or_nan_figures_the_first_stays() -> None:
    best = Best(BestSection())
    assert [best.improves({"loss": value}, step) for step, value in enumerate((float("nan"), 2.0, 2.0, 3.0, 1.0))] == [
        False, True, False, False, True,
    ]  # fmt: skip
    assert best.note == {"step": 4, "value": 1.0, "figure": "loss"} and not best.improves({}, 9)
    highest = Best(BestSection(figure="psnr", highest=True), {"step": 3, "value": 20.0})
    assert not highest.improves({"psnr": 19.0}, 4) and highest.improves({"psnr": 21.0}, 5)
    assert highest.note == {"step": 5, "value": 21.0, "figure": "psnr"} and Best(BestSection()).note is None


@pytest.mark.parametrize("make", [tiny.denoiser_recipe, tiny.codec_recipe])
def test_the_best_is_what_the_run_would_have_ended_in_there(tmp_path: Path, make: Any) -> None:
    figure, key = ("loss", "loss") if make is tiny.denoiser_recipe else ("psnr", "psnr")
    highest = figure == "psnr"
    watched = [
        "optimiser.lr=0.05", "schedule={type: constant}", "steps=8", "validation={every: 2, count: 4}",
        f"checkpoints={{every: 2, keep: 4, best: {{figure: {figure}, highest: {str(highest).lower()}}}}}",
    ]  # fmt: skip
    tiny.train(make(tmp_path / "run", *watched))
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    found = {line["step"]: line[f"validation/{key}"] for line in lines if f"validation/{key}" in line}
    wanted = (max if highest else min)(found, key=lambda step: found[step])
    note = json.loads((tmp_path / "run/best.json").read_text())
    assert note == {"step": wanted, "value": pytest.approx(found[wanted]), "figure": figure}
    tiny.train(make(tmp_path / "short", *watched, f"steps={wanted}", "checkpoints={every: 2}"))
    tiny.assert_same(tiny.tensors(tmp_path / "run/best"), tiny.tensors(tmp_path / "short/model"))
    (ldmkit.load if make is tiny.denoiser_recipe else ldmkit.load_codec)(tmp_path / "run/best")


def test_it_changes_nothing_else_and_a_run_that_goes_on_has_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny.denoiser_recipe(tmp_path / "plain", *WATCHED, "checkpoints={every: 2, keep: 4}")
    tiny.train(plain)
    tiny.train(tiny.denoiser_recipe(tmp_path / "whole", *WATCHED))
    tiny.assert_same(tiny.tensors(tmp_path / "plain/model"), tiny.tensors(tmp_path / "whole/model"))
    assert not (tmp_path / "plain/best").exists()
    tiny.train(tiny.denoiser_recipe(tmp_path / "whole2", *WATCHED))
    for step in (4, 6, 8):  # as if killed behind step 2: later checkpoints are gone, the best model of later is there
        shutil.rmtree(tmp_path / f"whole2/checkpoints/step-0000000{step}")
    saved: list[int] = []
    save = engine_module.save_best
    monkeypatch.setattr(engine_module, "save_best", lambda best, *rest: (saved.append(best.step), save(best, *rest)))
    tiny.train(tiny.denoiser_recipe(tmp_path / "whole2", *WATCHED))
    better = [step for step, value in figures(tmp_path / "whole").items()
              if all(value < other for at, other in figures(tmp_path / "whole").items() if at < step)]  # fmt: skip
    assert saved == [step for step in better if step > 2]
    assert (tmp_path / "whole/best.json").read_text() == (tmp_path / "whole2/best.json").read_text()
    tiny.assert_same(tiny.tensors(tmp_path / "whole/best"), tiny.tensors(tmp_path / "whole2/best"))


@pytest.mark.parametrize(("changes", "code"), [
    (["checkpoints.best.figure=los"], "spec.no-figure"),
    (["validation=null"], "spec.best-of-nothing"), (["data.validation=null"], "spec.best-of-nothing"),
])  # fmt: skip
def test_a_best_of_nothing_is_refused_before_the_first_step(tmp_path: Path, changes: list[str], code: str) -> None:
    with pytest.raises(SpecError) as caught:
        tiny.train(tiny.denoiser_recipe(tmp_path / "run", *WATCHED, *changes))
    assert caught.value.code == code and not (tmp_path / "run").exists()
