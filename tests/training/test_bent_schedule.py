"""Another number of steps at a resume is said in numbers where it makes the learning rate jump."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from ldmkit_training.before.same_run import rate_jumps
from ldmkit_training.loop.engine import Engine

from ldmkit.cli import main

COSINE = "schedule={type: cosine, warmup: 2}"


def said(tmp_path: Path, step: int, steps: int, *overrides: str) -> list[str]:
    """After `step` of six steps, for a run of `steps`."""
    before = tiny.denoiser_recipe(tmp_path, *overrides)
    return rate_jumps(
        before.model_dump(mode="json"), tiny.denoiser_recipe(tmp_path, f"steps={steps}", *overrides), step
    )


def test_the_jump_is_what_both_schedules_give(tmp_path: Path) -> None:
    """A half cosine down from 1e-3 after two steps: at 6 of 6 it is 0, at 6 of 10 a half."""
    [line] = said(tmp_path, 6, 10, COSINE)
    assert line == (
        "steps: 10, where 6 were planned: at step 7 the learning rate jumps from the 0 that the cosine schedule led "
        "to, to 0.0005"
    )
    [line] = said(tmp_path, 4, 10, "schedule={type: linear, final: 0.25}")
    assert "at step 5" in line and "from the 0.0005 " in line and line.endswith("to 0.0007")


@pytest.mark.parametrize(
    ("step", "steps", "schedule"),
    [
        (6, 10, "{type: constant}"),  # the rate does not depend on the run's length
        (6, 6, "{type: cosine}"),  # nothing changes
        (4, 4, "{type: cosine}"),  # nothing is left to train
        (1, 10, "{type: cosine, warmup: 2}"),  # the warm-up is the same in both
        (6, 10, "{type: cosine, final: 1.0}"),
    ],
)
def test_nothing_is_said_where_nothing_jumps(tmp_path: Path, step: int, steps: int, schedule: str) -> None:
    assert said(tmp_path, step, steps, f"schedule={schedule}") == []


def test_the_command_says_it_when_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.denoiser_data(tmp_path / "run", "data.validation=null", "validation=null", COSINE)
    path = tiny.write(data, tmp_path / "recipe.yaml")
    assert main(["train", str(path)]) == 0
    assert "jumps" not in capsys.readouterr().err
    assert main(["train", str(path), "--set", "steps=8"]) == 0
    assert "at step 7 the learning rate jumps from the 0 that the cosine schedule led to" in capsys.readouterr().err


def test_whoever_trains_by_python_finds_it_too(tmp_path: Path) -> None:
    tiny.train(tiny.denoiser_recipe(tmp_path, COSINE))
    engine = Engine(tiny.denoiser_recipe(tmp_path, COSINE, "steps=8"), Path())
    assert len(engine.rate_jumps) == 1 and engine.run().step == 8
