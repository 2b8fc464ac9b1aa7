"""A signal in what looks on (previews, probe, validation), or an error in mid-run, loses no step."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from ldmkit_training.loop.engine import Engine
from ldmkit_training.loop.interrupts import Signalled, between_calls

from ldmkit.errors import InputError

CHECKPOINTS = "checkpoints.every=1000"


def newest(out: Path) -> str:
    return max(path.name for path in (out / "checkpoints").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
@pytest.mark.parametrize("where", ["validation", "previews", "probe"])
def test_a_signal_ends_what_looks_on_and_saves(tmp_path: Path, where: str, number: signal.Signals) -> None:
    sections = {"previews": "previews={every: 3, count: 2, steps: 3}", "probe": "probe={every: 3, count: 4}"}
    changed = [sections[where], "validation=null"] if where in sections else ["validation={every: 3, count: 4}"]
    recipe = tiny.denoiser_recipe(tmp_path / "run", CHECKPOINTS, *changed)
    plain = Engine(recipe, tmp_path)
    calls = 0

    def count(module: torch.nn.Module, arguments: Any) -> None:
        nonlocal calls
        if not module.training:
            calls += 1
            if calls == 1:
                os.kill(os.getpid(), number)

    plain.stage.pipeline.denoiser.register_forward_pre_hook(count)
    assert plain.run() == (3, number.name, None)
    assert newest(tmp_path / "run") == "step-00000003"
    assert calls == 1  # the network was left where it called its next layer
    tiny.train(recipe)
    tiny.train(tiny.denoiser_recipe(tmp_path / "whole", CHECKPOINTS, *changed))
    tiny.assert_same(tiny.tensors(tmp_path / "run/model"), tiny.tensors(tmp_path / "whole/model"))


def test_only_calls_of_networks_are_places_to_stop() -> None:
    net = torch.nn.Linear(2, 2)
    with between_calls(lambda: None):
        net(torch.zeros(1, 2))
    with pytest.raises(Signalled, match="SIGINT"), between_calls(lambda: "SIGINT"):
        net(torch.zeros(1, 2))
    net(torch.zeros(1, 2))  # the hook is gone


def failing(batches: Iterator[Any], at: int, error: Exception) -> Iterator[Any]:
    for step, parts in batches:
        if step == at:
            raise error
        yield step, parts


@pytest.mark.parametrize("error", [InputError("damaged", "cut short", where="d/7.png"), OSError("the disk is gone")])
def test_an_error_of_the_data_in_mid_run_saves_first(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny.denoiser_recipe(tmp_path / "run", CHECKPOINTS)
    batches = Engine._batches
    monkeypatch.setattr(Engine, "_batches", lambda self, asked: failing(batches(self, asked), 4, error))
    with pytest.raises(type(error)) as caught:
        tiny.train(recipe)
    said = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert "the 4 steps before it are saved in" in said and "step-00000004" in said
    monkeypatch.undo()
    tiny.train(recipe)
    tiny.train(tiny.denoiser_recipe(tmp_path / "whole", CHECKPOINTS))
    tiny.assert_same(tiny.tensors(tmp_path / "run/model"), tiny.tensors(tmp_path / "whole/model"))


def test_an_input_that_the_model_refuses_in_mid_run_saves_first(tmp_path: Path) -> None:
    engine = Engine(tiny.denoiser_recipe(tmp_path / "run", CHECKPOINTS), tmp_path)
    run = engine.steps.run

    def bad(step: int, parts: Any) -> None:
        if step == 3:
            parts[0].inputs[1]["label"] = "no such class"
        run(step, parts)

    engine.steps.run = bad  # type: ignore[method-assign]
    with pytest.raises(InputError, match="the 3 steps before it are saved"):
        engine.run()
    assert newest(tmp_path / "run") == "step-00000003"


def test_a_step_that_was_left_half_done_is_not_saved(tmp_path: Path) -> None:
    engine = Engine(tiny.codec_recipe(tmp_path / "run", CHECKPOINTS), tmp_path)
    turn = engine.stage.turns["discriminator"]
    forward = turn.forward

    def broken(batch: Any, step: int) -> Any:
        if step == 4:  # the codec's turn of this step is over
            raise InputError("damaged", "too late")
        return forward(batch, step)

    turn.forward = broken
    with pytest.raises(InputError, match=r"too late$"):
        engine.run()
    assert not (tmp_path / "run/checkpoints").exists() or not list((tmp_path / "run/checkpoints").iterdir())
