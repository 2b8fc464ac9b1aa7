"""The loop: both stages train, save what loads, stop and go on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from ldmkit_training.loop.engine import Engine
from ldmkit_training.loop.interrupts import Interrupts

import ldmkit
from ldmkit.errors import InputError, RunError, SpecError


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def without_times(out: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k not in ("seconds", "images/s")} for line in lines(out)]


def test_a_codec_is_trained_and_loads(tmp_path: Path) -> None:
    outcome = tiny.train(tiny.codec_recipe(tmp_path / "run"))
    assert (outcome.step, outcome.stopped) == (6, None)
    codec = ldmkit.load_codec(outcome.model)
    latents = codec.encode(torch.zeros(1, 3, 16, 16))
    assert latents.shape == (1, 2, 4, 4) and bool(latents.isfinite().all())
    log = lines(tmp_path / "run")
    steps = [line for line in log if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    # the discriminator joins after two steps
    assert ["discriminator/loss" in line for line in steps] == [False, False, True, True, True, True]
    assert [line["step"] for line in log if "validation/psnr" in line] == [3, 6]
    resolved = yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())
    assert resolved["optimiser"]["weight_decay"] == 0.01 and resolved["steps"] == 6


def test_a_denoiser_is_trained_on_a_trained_codec(tmp_path: Path) -> None:
    tiny.train(tiny.codec_recipe(tmp_path / "codec"))
    codec = f"model.codec={{from: {tmp_path / 'codec'}}}"
    recipe = tiny.denoiser_recipe(tmp_path / "run", codec, "model.denoiser.config.channels=2")
    outcome = tiny.train(recipe)
    drawn = ldmkit.load(outcome.model)({"label": "snow"}, seeds=[1])
    assert drawn.images.shape == (1, 3, 16, 16)
    first = tiny.tensors(tmp_path / "codec/model")
    inside = {name: t for name, t in tiny.tensors(outcome.model).items() if name.startswith("codec")}
    tiny.assert_same(first, inside)


def test_what_is_saved_is_the_average(tmp_path: Path) -> None:
    engine = Engine(tiny.denoiser_recipe(tmp_path / "run"), tmp_path)
    outcome = engine.run()
    saved = ldmkit.load(outcome.model).denoiser.state_dict()
    live = engine.stage.pipeline.denoiser.state_dict()
    average = {name.removeprefix("part-denoiser."): t for name, t in engine.ema.tensors.items()}
    assert all(torch.equal(saved[name], average[name]) for name in saved)
    assert not all(torch.equal(saved[name], live[name]) for name in saved)


@pytest.mark.parametrize("stage", [tiny.codec_recipe, tiny.denoiser_recipe])
@pytest.mark.parametrize("first", [1, 4])
def test_a_run_in_two_pieces_is_the_same_run(tmp_path: Path, stage: object, first: int) -> None:
    """Bit for bit: weights, average, optimiser, and the figures in the log."""
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    tiny.train(stage(whole))
    engine = Engine(stage(pieces), tmp_path)
    engine.steps.run = _signalling(engine, first)
    stopped = engine.run()
    assert (stopped.step, stopped.stopped, stopped.model) == (first, "SIGTERM", None)
    tiny.train(stage(pieces))
    tiny.assert_same(tiny.tensors(whole / "model"), tiny.tensors(pieces / "model"))
    last = "checkpoints/step-00000006"
    tiny.assert_same(tiny.tensors(whole / last), tiny.tensors(pieces / last))
    assert without_times(whole) == without_times(pieces)


def _signalling(engine: Engine, after: int) -> object:
    plain = engine.steps.run

    def run(step: int, parts: list) -> None:
        plain(step, parts)
        if step + 1 == after:
            os.kill(os.getpid(), signal.SIGTERM)

    return run


def test_a_second_signal_is_no_longer_held_back() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked == "SIGINT"
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_finished_run_goes_on_for_more_steps(tmp_path: Path) -> None:
    tiny.train(tiny.denoiser_recipe(tmp_path / "run", "schedule={type: constant}"))
    outcome = tiny.train(tiny.denoiser_recipe(tmp_path / "run", "schedule={type: constant}", "steps=9"))
    assert outcome.step == 9
    tiny.train(tiny.denoiser_recipe(tmp_path / "whole", "schedule={type: constant}", "steps=9"))
    tiny.assert_same(tiny.tensors(tmp_path / "run/model"), tiny.tensors(tmp_path / "whole/model"))


def test_fewer_steps_than_are_done_are_refused(tmp_path: Path) -> None:
    tiny.train(tiny.denoiser_recipe(tmp_path / "run"))
    with pytest.raises(SpecError, match="6 steps are done, the recipe wants 5") as caught:
        tiny.train(tiny.denoiser_recipe(tmp_path / "run", "steps=5"))
    assert caught.value.code == "spec.steps-done" and "steps: 6" in str(caught.value)


def test_fresh_keeps_the_older_run(tmp_path: Path) -> None:
    tiny.train(tiny.denoiser_recipe(tmp_path / "run", "steps=1"))
    before = tiny.tensors(tmp_path / "run")
    tiny.train(tiny.denoiser_recipe(tmp_path / "run", "steps=1", "seed=4"), fresh=True)
    tiny.assert_same(before, tiny.tensors(tmp_path / "run.1"))
    assert not torch.equal(
        *(tiny.tensors(tmp_path / n)["model/denoiser.safetensors/conv_in.weight"] for n in ("run", "run.1"))
    )


def test_a_run_of_another_recipe_is_refused(tmp_path: Path) -> None:
    tiny.train(tiny.denoiser_recipe(tmp_path / "run", "steps=2"))
    with pytest.raises(SpecError) as caught:
        tiny.train(tiny.denoiser_recipe(tmp_path / "run", "steps=2", "optimiser.lr=0.5"))
    assert caught.value.code == "spec.other-recipe" and "optimiser.lr = 0.001" in caught.value.what
    tiny.train(tiny.denoiser_recipe(tmp_path / "run", "steps=3", "tracking.every=2", "checkpoints.keep=1"))


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError) as caught:
        tiny.train(tiny.denoiser_recipe(tmp_path))
    assert caught.value.code == "input.folder-taken"


def test_accumulated_parts_make_the_same_step(tmp_path: Path) -> None:
    """Sums in another order: float32 rounding, which Adam's division by small numbers magnifies."""
    tiny.train(tiny.denoiser_recipe(tmp_path / "one", "ema=null"))
    tiny.train(tiny.denoiser_recipe(tmp_path / "two", "ema=null", "accumulate=2"))
    one, two = (without_times(tmp_path / name) for name in ("one", "two"))
    assert sum("loss" in line for line in one) == 6
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-4)


def test_bfloat16_keeps_float32_weights_and_learns_the_same(tmp_path: Path) -> None:
    tiny.train(tiny.denoiser_recipe(tmp_path / "f", "steps=3"))
    tiny.train(tiny.denoiser_recipe(tmp_path / "b", "steps=3", "precision=bfloat16"))
    assert {t.dtype for t in tiny.tensors(tmp_path / "b").values()} == {torch.float32}
    losses = [[line["loss"] for line in lines(tmp_path / name) if "loss" in line] for name in ("f", "b")]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)  # bfloat16 has 8 bits of mantissa
    assert losses[0] != losses[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="on CUDA it works")
def test_float16_wants_cuda(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        tiny.train(tiny.denoiser_recipe(tmp_path / "run", "precision=float16"))
    assert caught.value.code == "spec.precision"


def test_a_loss_that_is_nan_names_step_samples_and_checkpoint(tmp_path: Path) -> None:
    engine = Engine(tiny.denoiser_recipe(tmp_path / "run"), tmp_path)
    plain = engine.steps.run

    def poisoned(step: int, parts: list) -> None:
        if step == 4:
            parts[0].images[1, 0, 0, 0] = float("nan")
        plain(step, parts)

    engine.steps.run = poisoned
    with pytest.raises(RunError) as caught:
        engine.run()
    error = caught.value
    assert error.code == "run.loss-not-finite" and error.where == "step 5"
    ids = next(b for s, b in _batches(tmp_path) if s == 4)
    assert len(ids) == 4 and all(name in error.what for name in ids)
    assert "step-00000004" in error.fits
    assert all(bool(t.isfinite().all()) for t in engine.stage.averaged.state_dict().values())


def _batches(folder: Path) -> list[tuple[int, tuple[str, ...]]]:
    engine = Engine(tiny.denoiser_recipe(folder / "again"), folder)
    return [(step, parts[0].ids) for (step, parts), _ in zip(engine._batches(), range(6), strict=False)]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP"])
def test_signals_of_batch_systems_and_terminals_save(tmp_path: Path, name: str) -> None:
    """Twice, as a terminal that closes sends it; after the block the handlers are those from before."""
    number = signal.Signals[name]
    before = signal.getsignal(number)
    engine = Engine(tiny.codec_recipe(tmp_path / "run", "steps=1000"), tmp_path)
    once = engine.steps.run

    def warned(step: int, parts: Any) -> None:
        once(step, parts)
        for _ in range(1 if name == "SIGTERM" else 2):
            os.kill(os.getpid(), number)

    engine.steps.run = warned  # type: ignore[method-assign]
    assert engine.run() == (1, name, None)
    assert any((tmp_path / "run/checkpoints").iterdir())
    assert signal.getsignal(number) is before


def test_an_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
        assert interrupts.asked is None
    finally:
        signal.signal(signal.SIGHUP, before)
