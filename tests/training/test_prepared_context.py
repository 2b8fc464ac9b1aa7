"""The context that training prepares is the one that a run prepares of the same conditions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toys import ToyStage, toy_batch

from ldmkit import CompositionError, Context, InputError, RunError
from ldmkit.contracts.signals import tensors_of
from ldmkit.contracts.step import Run
from ldmkit.run.context import prepared_context
from ldmkit.run.denoise import Evaluator


@pytest.mark.parametrize("dropped", [(), ("label",), ("layout", "semantic"), ("layout", "label", "semantic")])
def test_rows_that_training_drops_are_views_of_a_run(dropped: tuple[str, ...]) -> None:
    stage, batch = ToyStage(), toy_batch(0, 3)
    pipeline = stage.pipeline
    given = [{k: v for k, v in row.items() if (i, k) != (1, "label")} for i, row in enumerate(batch.inputs)]
    conditioning = pipeline.conditioning(given, size=batch.size)
    run = Run((1.0, 0.0), (8, 8))
    wanted = Evaluator(pipeline.denoiser, pipeline.process, conditioning, run).context((frozenset(dropped),))
    with torch.no_grad():
        got = stage.turn.context(conditioning, {name: torch.zeros(3, dtype=torch.bool) for name in dropped})
    assert got.run is None and wanted.run is run
    assert got.present.keys() == wanted.present.keys() == {"context", "plane"}
    for slot, present in got.present.items():
        assert present.dtype == torch.bool and torch.equal(present, wanted.present[slot]), slot
        pairs = zip(tensors_of(got.signals[slot]), tensors_of(wanted.signals[slot]), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs), slot


def test_some_rows_are_dropped_and_others_are_not() -> None:
    stage, batch = ToyStage(), toy_batch(0, 3)
    conditioning = stage.pipeline.conditioning(batch.inputs, size=batch.size)
    mask = torch.tensor([True, False, True])
    signals, present = conditioning.kept({"semantic": mask})
    whole, without = conditioning.view(), conditioning.view({"semantic"})
    for row, keep in enumerate(mask.tolist()):
        assert torch.equal(signals["plane"].value[row], (whole if keep else without)["plane"].value[row])
    assert torch.equal(present["plane"], mask) and bool(present["context"].all())
    # rates and draws come to the same rows
    drawn = conditioning.dropout({"semantic": 0.5}, lambda name: torch.tensor([0.5, 0.49, 0.9]))
    assert torch.equal(drawn["plane"].value, signals["plane"].value)


@pytest.mark.parametrize("mask", [torch.ones(3), torch.ones(2, dtype=torch.bool), torch.ones(3, 1, dtype=torch.bool)])
def test_a_row_mask_is_a_mask(mask: torch.Tensor) -> None:
    stage, batch = ToyStage(), toy_batch(0, 3)
    conditioning = stage.pipeline.conditioning(batch.inputs, size=batch.size)
    with pytest.raises(InputError) as caught:
        conditioning.kept({"label": mask})
    assert (caught.value.code, caught.value.where) == ("input.row-mask", "kept.label")
    with pytest.raises(CompositionError, match="'lable'"):
        conditioning.kept({"lable": torch.ones(3, dtype=torch.bool)})


def test_a_denoiser_that_returns_no_context_is_named_in_training_too() -> None:
    class Broken(type(ToyStage().pipeline.denoiser)):  # type: ignore[misc]
        def prepare(self, signals: Any) -> Any:
            return dict(signals)

    stage = ToyStage()
    stage.pipeline.denoiser.__class__ = Broken
    with pytest.raises(RunError, match="prepare returned dict"):
        stage.turn(toy_batch(0), 0)


def test_adapters_prepare_from_the_whole_context() -> None:
    seen: list[Context] = []

    class Looking:
        def prepare(self, context: Context, name: str) -> str:
            seen.append(context)
            return name

    pipeline = ToyStage().pipeline
    signals = pipeline.conditioning(toy_batch(0, 2).inputs, size=(8, 8)).view()
    run, present = Run((1.0, 0.0), (8, 8)), {"plane": torch.ones(2, dtype=torch.bool)}
    made = prepared_context(pipeline.denoiser, {"a": Looking(), "b": Looking()}, signals, present, run)
    assert made.adapters == {"a": "a", "b": "b"} and seen == [made, made]
    assert (made.signals, made.present, made.run) == (signals, present, run)
