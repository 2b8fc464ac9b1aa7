"""Pipelines made from one another share modules: a conversion of one that reaches others is said."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import tiny_parts
import torch

import ldmkit
from ldmkit.errors import DrawingWarning

L = {"label": 1}


def said(call: Callable[[], object], word: str = "shares modules") -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught if issubclass(w.category, DrawingWarning) and word in str(w.message)]


def other_denoiser(pipe: ldmkit.Pipeline) -> Any:
    return tiny_parts.part("denoiser", "unet", pipe.denoiser.config.model_dump(), seed=99)


def test_a_part_of_another_pipeline_is_converted() -> None:
    pipe = tiny_parts.class_pipeline()
    other = pipe.with_(denoiser=other_denoiser(pipe))
    (found,) = said(lambda: other.to(torch.float64))
    assert "to(torch.float64) also converts conditioners.label of another pipeline" in found
    assert (
        pipe.conditioners["label"].dtype == torch.float64 and pipe.denoiser.dtype == torch.float32
    )  # it is so, as nn.Module.to does
    assert not said(lambda: other.to(torch.float64))  # nothing is changed any more


@pytest.mark.parametrize("derive", [lambda p: p.planned("eager"), lambda p: p.with_(steps=2), lambda p: p])
def test_nothing_is_said_where_the_other_is_gone(derive: Callable[[ldmkit.Pipeline], ldmkit.Pipeline]) -> None:
    pipe = tiny_parts.class_pipeline()
    pipe(L, steps=2)
    pipe = derive(pipe)
    assert not said(lambda: pipe.to(torch.float64))
    assert pipe(L, steps=2).images.isfinite().all()


def test_nothing_is_said_of_moves_and_of_parts_of_its_own() -> None:
    pipe = tiny_parts.class_pipeline()
    other, apart = pipe.with_(steps=2), tiny_parts.class_pipeline()
    assert not said(lambda: other.to("cpu")) and not said(lambda: other.to(torch.float32))
    assert not said(lambda: apart.to(torch.float64))
    assert said(lambda: other.to(torch.float64)) and pipe.steps  # which is still there


def test_stages_of_a_cascade_are_converted_together() -> None:
    base = tiny_parts.class_pipeline()
    cascade = ldmkit.Cascade.of({"base": base, "again": base.with_(steps=2)})
    del base
    assert not said(lambda: cascade.to(torch.float64))
    assert {stage.denoiser.dtype for stage in cascade.stages.values()} == {torch.float64}


def yields(step: ldmkit.Step) -> Any:
    yield step


async def awaits(step: ldmkit.Step) -> None:
    return None


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (lambda step: {"latents": torch.zeros_like(step.x)}, "returned a dict, which does nothing"),
        (lambda step: False, "returned False, which does nothing"),
        (lambda step: step, "returned a Step"),
        (lambda step: step.x * 0, "returned a Tensor"),
        (yields, "is a generator function"),
        (awaits, "is an async function"),
        (lambda step: None, ""),
        (lambda step: True, ""),  # of a progress bar's update
        (lambda step: step.index, ""),
    ],
)
def test_what_a_callback_returns_does_nothing(callback: Any, words: str) -> None:
    """It is said once a run, and the pictures are those of a run without it."""
    pipe = tiny_parts.class_pipeline()
    wanted = pipe(L, steps=3).images
    found = said(lambda: pipe(L, steps=3, on_step=callback), "on_step")
    assert len(found) == bool(words) and words in " ".join(found)
    assert torch.equal(pipe(L, steps=3, on_step=callback).images, wanted)
    cascade = ldmkit.Cascade.of({"base": pipe, "again": pipe})
    assert len(said(lambda: cascade(L, steps=2, on_step=callback), "on_step")) == bool(words)
