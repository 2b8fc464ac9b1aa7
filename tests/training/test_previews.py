"""Previews and the probe look without touching, and say what they see."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from ldmkit_drawing.charts import line_chart, ticks
from ldmkit_training.watch.observe import undisturbed
from ldmkit_training.watch.previews import Previews, PreviewsSection, first_rows
from ldmkit_training.watch.probe import Effect, Probe, ProbeSection, Response, respond, sure_at
from PIL import Image
from toys import ToyStage, ToyView, same, toy_batch, train, weights

PREVIEWS = PreviewsSection(every=2, count=3, steps=2, seed=5)
PROBE = ProbeSection(every=2, count=6)


def held_out(count: int = 2) -> list:
    return [toy_batch(1000 + i, 4, seed=9) for i in range(count)]


class Noisy:
    """What a callback must not be: it draws from torch's generator in passing."""

    every = 2

    def __call__(self, view: ToyView, step: int) -> None:
        torch.rand(1)


def run(tmp_path: Path, callback: object, average: bool = True) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    torch.manual_seed(3)
    stage = ToyStage()
    view = ToyView(stage, tmp_path, average)
    train(stage, 5, view, callback)
    tensors = weights(stage)
    if view.ema is not None:
        tensors |= {f"ema.{name}": tensor for name, tensor in view.ema.tensors.items()}
    return tensors, torch.get_rng_state()


@pytest.mark.parametrize("make", [lambda: Previews(PREVIEWS, held_out()), lambda: Probe(PROBE, held_out())])
@pytest.mark.parametrize("average", [True, False])
def test_watching_changes_no_weight_and_no_generator(tmp_path: Path, make: object, average: bool) -> None:
    plain, state = run(tmp_path, None, average)
    watched, after = run(tmp_path, make(), average)
    assert same(plain, watched) and torch.equal(state, after)
    assert len(list(tmp_path.iterdir())) > 0


@pytest.mark.parametrize("make", [tiny.codec_recipe, tiny.denoiser_recipe])
def test_runs_with_and_without_watching_end_in_the_same_bits(make: Callable[..., Any], tmp_path: Path) -> None:
    watching = ["previews={every: 2, count: 2, steps: 2}", "tracking={to: [tensorboard], every: 1}"]
    if make is tiny.denoiser_recipe:
        watching += ["probe={every: 2, count: 4}"]
    for name, changes in (("plain", []), ("watched", watching)):
        tiny.train(make(tmp_path / name, "steps=4", *changes))
    assert len(list((tmp_path / "watched" / "previews").iterdir())) == 2
    assert (tmp_path / "watched" / "probe.jsonl").exists() == (make is tiny.denoiser_recipe)
    last = [tmp_path / name / "checkpoints" / "step-00000004" for name in ("plain", "watched")]
    files = [path.name for path in last[0].glob("*.safetensors")]
    assert len(files) == 3
    for file in files:
        assert (last[0] / file).read_bytes() == (last[1] / file).read_bytes(), file


def test_the_comparison_would_notice(tmp_path: Path) -> None:
    _, state = run(tmp_path, None)
    _, after = run(tmp_path, Noisy())
    assert not torch.equal(state, after)


def test_modes_and_gradients_are_put_back() -> None:
    stage = ToyStage()
    stage.pipeline.denoiser.train()
    first = next(stage.pipeline.denoiser.children())
    first.eval()
    modes = [module.training for module in stage.turn.modules()]
    with pytest.raises(RuntimeError), undisturbed([stage.turn]):
        assert not any(module.training for module in stage.turn.modules()) and not torch.is_grad_enabled()
        raise RuntimeError
    assert [module.training for module in stage.turn.modules()] == modes and torch.is_grad_enabled()


def test_the_same_weights_give_the_same_sheet(tmp_path: Path) -> None:
    stage = ToyStage()
    view = ToyView(stage, tmp_path)
    callback = Previews(PREVIEWS, held_out())
    callback(view, 2)
    first = (tmp_path / "previews" / "step-00000002.png").read_bytes()
    torch.rand(7)
    callback(view, 2)
    assert (tmp_path / "previews" / "step-00000002.png").read_bytes() == first
    assert view.pictures == [("previews", 2)] * 2
    assert not list(tmp_path.glob("previews/.*"))


def test_a_sheet_has_the_picture_its_conditions_and_both_samples(tmp_path: Path) -> None:
    stage = ToyStage()
    view = ToyView(stage, tmp_path)
    with torch.no_grad():
        for tensor in view.ema.tensors.values():
            tensor.mul_(0.5)  # an average that differs
    sheet = Previews(PREVIEWS, held_out()).sheet(view, 7)
    assert sheet is not None
    assert sheet.columns == ("real", "layout", "label", "semantic", "sample, EMA", "sample, raw")
    assert [len(row.cells) for row in sheet._rows] == [6, 6, 6]
    average, raw = (sheet._rows[0].cells[i].content for i in (4, 5))
    expected = stage.pipeline(toy_batch(1000, 4, 9).inputs[0], seeds=5, steps=2).images[0]
    assert torch.allclose(raw, expected, atol=1e-5)  # alone or in a batch: rounding of other kernels
    assert not torch.allclose(average, raw, atol=1e-3)


def test_without_an_average_there_is_one_sample(tmp_path: Path) -> None:
    sheet = Previews(PREVIEWS, held_out()).sheet(ToyView(ToyStage(), tmp_path, average=False), 7)
    assert sheet is not None and sheet.columns[-2:] == ("semantic", "sample, raw")


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    view = ToyView(ToyStage(), tmp_path)
    view.main = False
    Previews(PREVIEWS, held_out())(view, 2)
    Probe(PROBE, held_out())(view, 2)
    assert list(tmp_path.iterdir()) == [] and view.said == []


def test_the_first_rows_are_taken_across_batches() -> None:
    taken = first_rows(held_out(3), 6)
    assert [len(batch.ids) for batch in taken] == [4, 2]
    assert taken[1].images.shape[0] == 2 and taken[1].draws.rows == (0, 1)


def zeroed() -> ToyStage:
    """A class conditioner whose weights are zero and stay so: the layout and the map work."""
    stage = ToyStage(frozen_parts=("label",))
    with torch.no_grad():
        stage.pipeline.conditioners["label"].embedding.weight.zero_()
        stage.pipeline.conditioners["layout"].mlp[-1].weight.mul_(20)  # so that an untrained network sees boxes
    return stage


def test_a_condition_that_does_nothing_is_named_at_once(tmp_path: Path) -> None:
    view = ToyView(zeroed(), tmp_path)
    Probe(PROBE, held_out())(view, 2)
    lines = {line.split(":")[0].strip(): line for line in view.said}
    assert lines["label"].endswith("does nothing yet") and "swap 0 " in lines["label"]
    assert not lines["layout"].endswith("does nothing yet") and not lines["semantic"].endswith("does nothing yet")
    record = json.loads((tmp_path / "probe.jsonl").read_text())
    assert record["conditions"]["label"]["swap"]["change"] == 0
    assert record["conditions"]["semantic"]["swap"]["change"] > 0.005
    assert view.figures[2]["probe/label/swap"] == 0


def test_a_conditioner_that_only_tells_presence() -> None:
    stage = ToyStage()
    with torch.no_grad():  # every class the same embedding, the null another one
        stage.pipeline.conditioners["label"].embedding.weight[:5] = 1.0
        stage.pipeline.conditioners["label"].embedding.weight[5] = -1.0
    with undisturbed([stage.turn]):
        found = {r.name: r for r in respond(stage.turn, held_out(), PROBE)}
    assert found["label"].verdict().startswith("only its presence counts")
    assert found["label"].null is not None and found["label"].null.change > 0.005


def test_training_makes_conditions_help_except_the_dead_one() -> None:
    stage = zeroed()
    losses = train(stage, 100, rows=16)
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    with undisturbed([stage.turn]):
        found = {r.name: r for r in respond(stage.turn, [toy_batch(5000, 128, seed=9)], ProbeSection(count=128))}
    assert found["semantic"].verdict() == "helps"
    assert found["label"].verdict() == "does nothing yet"


def test_rows_without_another_value_are_not_swapped() -> None:
    stage, batch = ToyStage(), toy_batch(0, 8)
    for row in batch.inputs:
        row["label"] = 2
    del batch.inputs[1]["layout"]
    with undisturbed([stage.turn]):
        found = {r.name: r for r in respond(stage.turn, [batch], PROBE)}
    assert found["label"].swap is None and found["label"].null is not None
    assert found["semantic"].swap is not None


def test_verdicts() -> None:
    nothing, reacts, helps = Effect(0.001, 0.0, 0.1), Effect(0.2, 0.01, 1.0), Effect(0.2, 0.3, 9.0)
    harms = Effect(0.2, -0.3, -9.0)
    assert Response("x", None, None).verdict().startswith("cannot be told")
    assert Response("x", nothing, nothing).verdict() == "does nothing yet"
    assert Response("x", nothing, nothing, helps, reacts).verdict() == "helps"
    assert Response("x", reacts, reacts).verdict() == "reacts, but does not help yet"
    assert Response("x", Effect(0.003, 0.01, 4.0), nothing).verdict() == "helps a little"
    assert Response("x", harms, helps).verdict() == "reacts, but does not help yet"


@pytest.mark.parametrize(
    ("effect", "helps"),
    [
        (Effect(0.2, 0.3, 9.0), True),
        (Effect(0.2, 0.0004, 90.0), False),  # sure, and of no use: it would read "+0.0 %"
        (Effect(0.2, 0.001, 90.0), True),
        (Effect(0.2, 0.3, 2.5), False),  # of forty comparisons one is as sure as that by chance
        (Effect(0.2, 0.3, 4.0, rows=32), True),
        (Effect(0.2, 0.3, 4.0, rows=4), False),  # four rows do not tell their own spread
        (Effect(0.2, 0.3, 25.0, rows=2), False),
        (Effect(0.0, 0.3, 9.0), False),
    ],
)
def test_a_condition_helps_where_that_is_sure_and_matters(effect: Effect, helps: bool) -> None:
    assert (Response("x", effect, None).verdict() == "helps") is helps
    assert "helps" not in Response("x", effect, None).line() or "+0.0%" not in Response("x", effect, None).line()


def test_how_sure_few_rows_must_be() -> None:
    """Quantiles of Student's t at the level of three standard deviations, 0.99865: 3.27 for 31 degrees of freedom,
    3.59 for 15 (tables). The expansion is within 1 % of them, and what it is for fewer is more than for more."""
    assert sure_at(32) == pytest.approx(3.27, rel=0.01) and sure_at(16) == pytest.approx(3.59, rel=0.01)
    assert sure_at(10**6) == pytest.approx(3.0, abs=1e-4)
    assert sure_at(2) > sure_at(4) > sure_at(8) > 4


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    view, rows = ToyView(ToyStage(), tmp_path), held_out()
    first = Probe(PROBE, rows)
    for step in (2, 4, 5):
        first(view, step)
    Probe(PROBE, rows, start=3)(view, 8)
    steps = [json.loads(line)["step"] for line in (tmp_path / "probe.jsonl").read_text().splitlines()]
    assert steps == [2, 8]
    assert Image.open(tmp_path / "probe.png").size[1] == 600


def test_curves_go_where_their_numbers_are() -> None:
    curve = [(0.0, 0.0), (100.0, 1.0)]
    image = np.asarray(line_chart([("rising", {"a": curve}, None, None)], width=400, height=200))
    from ldmkit_drawing.drawings import colour

    rows, columns = np.nonzero((image[:, :380] == colour(0)).all(2))
    assert rows[columns.argmin()] > 150 and rows[columns.argmax()] < 60
    assert columns.min() <= 64 and columns.max() + 8 >= 380


def test_ticks_are_round() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(-3, 11990, 6) == [0, 2000, 4000, 6000, 8000, 10000]
    assert ticks(2, 2) == [2]
