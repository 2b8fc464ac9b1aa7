"""Conditions, negatives and options of guidance that cannot act in a call are named before it is drawn."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import tiny_parts
import torch

import ldmkit
from ldmkit import Guidance
from ldmkit.errors import DrawingWarning

BOTH = {"text": "a red house", "label": "lake"}
SEVERAL = {"type": "per-condition", "config": {"scales": {"text": 3.0, "label": 2.0}, "composition": "independent"}}


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    return ldmkit.load("miniworld")


def cfg(**config: Any) -> dict[str, Any]:
    return {"type": "cfg", "config": config}


@pytest.mark.parametrize(
    ("inputs", "guidance", "negative", "words"),
    [
        (BOTH, {"text": 1, "label": 3}, {"text": "a car"}, "negative of 'text' has no effect"),
        (BOTH, {"text": 3}, {"label": "snow"}, "negative of 'label' has no effect"),
        (BOTH, {"text": 3}, {"label": "snow", "text": "a car"}, "negative of 'label' has no effect"),
        (BOTH, {"text": 0, "label": 0}, {}, "'text', 'label' has no effect, because"),
        (BOTH, {"label": 0, "text": 0}, {"text": "a car"}, "'text', 'label' has no effect, because"),
        (BOTH, {"text": 0}, {}, "'text' has no effect, because"),
        (BOTH, 0, {}, "'text', 'label' has no effect, because"),
        ({"label": "lake"}, {"text": 2}, {}, "scales for 'text', which is not given: 'label' is used without"),
        (BOTH, cfg(scale=3.0, interval=(0, 1e-6)), {}, r"is in the guidance's interval \(0.0, 1e-06\)"),
        (BOTH, cfg(scale=0.0, interval=(0, 1e-6)), {}, "is in the guidance's interval"),
        (
            BOTH,
            cfg(scale=3.0, interval=(0, 1e-6)),
            {"text": "a car"},
            "negative inputs have no effect without",
        ),
        (BOTH, cfg(scale=1.0, interval=(1, 2)), {}, "the guidance's interval has no effect"),
        (BOTH, cfg(scale=1.0, rescale=0.7), {}, "the guidance's rescale has no effect"),
        (BOTH, 3.0, {"text": "a red house"}, "negative of 'text' equals the input"),
        (BOTH, 1, {"text": "a car"}, "negative inputs have no effect without"),
        (BOTH, "none", {"text": "a car"}, "negative inputs have no effect without"),
    ],
)
def test_said(pipe: ldmkit.Pipeline, inputs: Any, guidance: Any, negative: Any, words: str) -> None:
    with pytest.warns(DrawingWarning, match=words):
        pipe.prepare(inputs, guidance=guidance, negative=negative, propose=False)


@pytest.mark.parametrize(
    ("inputs", "guidance", "negative"),
    [
        (BOTH, {"text": 2, "label": 3}, {"text": "a car"}),
        (BOTH, {"text": 3}, {"text": "a car"}),
        (BOTH, {"text": 2}, {}),
        (BOTH, SEVERAL, {"text": "a car", "label": "snow"}),
        (BOTH, cfg(scale=0.0, interval=(0.1, 2.0)), {}),
        (BOTH, cfg(scale=3.0, interval=(0.1, 2.0), rescale=0.5), {"text": "a car"}),
        ({"label": "lake"}, None, {}),
        ({}, None, {}),
        ({}, 5.0, {}),
        ({"label": "lake"}, 0.5, {}),
        ({}, {"text": 2}, {"text": "a car"}),
        ({"label": "lake"}, None, {"text": "a car"}),
    ],
)
def test_not_said(pipe: ldmkit.Pipeline, inputs: Any, guidance: Any, negative: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.prepare(inputs, guidance=guidance, negative=negative, propose=False)


@pytest.mark.parametrize("inputs", [BOTH, {"label": "lake"}, {"text": "a red house"}])
@pytest.mark.parametrize("scales", [{"text": 1, "label": 3}, {"text": 3}, {"label": 1, "text": 2}, {"text": 0}])
@pytest.mark.parametrize("negative", [{"text": "a car"}, {"label": "snow"}])
def test_what_is_said_is_so(pipe: ldmkit.Pipeline, inputs: Any, scales: Any, negative: Any) -> None:
    """A negative is said to have no effect exactly where the latents are those of a call without it."""
    options: dict[str, Any] = {"guidance": scales, "steps": 4, "propose": False}
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        out = pipe(inputs, negative=negative, **options)
    said = any("negative" in str(warning.message) for warning in found)
    plain = pipe(inputs, **options)
    assert torch.equal(out.latents, plain.latents) == said


def test_latents_that_were_not_scaled(pipe: ldmkit.Pipeline) -> None:
    drawn = pipe({"label": "lake"}, steps=2).latents[0]
    raw = drawn / drawn.std() / 0.18215
    with pytest.warns(DrawingWarning, match="standard deviation of 5.49; scaled latents"):
        pipe.prepare({"label": "lake"}, start={"latents": raw})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.prepare({"label": "lake"}, start={"latents": drawn})


def test_guidance_that_does_not_tell(pipe: ldmkit.Pipeline) -> None:
    class Silent(Guidance):
        """A stranger's, without weights."""

        scale: float = 0.0

        def __call__(self, evaluate: Any, x: torch.Tensor, sigma: float) -> torch.Tensor:
            return evaluate(x, sigma, frozenset(evaluate.names))[0]

    with pytest.warns(DrawingWarning, match="'text', 'label' has no effect, because"):
        pipe.prepare(BOTH, guidance=Silent(), propose=False)
    with pytest.warns(DrawingWarning, match="negative inputs have no effect without"):
        pipe.prepare(BOTH, guidance=Silent(scale=1.0), negative={"text": "a car"})


@pytest.mark.parametrize(("changes", "words"), [
    ({"scale": 0.0}, "the adapter 'edges' has no effect: its scale is 0"),
    ({"start": 0.0, "end": 0.0}, "no step of 4 lies in its window, from 0 to 0"),
    ({"start": 0.3, "end": 0.4}, "no step of 4 lies in its window, from 0.3 to 0.4"),
])  # fmt: skip
def test_an_adapter_that_cannot_act_is_said(controlled: ldmkit.Pipeline, changes: dict[str, float], words: str) -> None:
    asked = {"label": 1, "edges": torch.zeros(3, 8, 8)}
    with pytest.warns(DrawingWarning, match=words):
        idle = controlled.tuned("edges", **changes)(asked, steps=4)
    assert torch.equal(idle.images, controlled({"label": 1}, steps=4).images)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DrawingWarning)
        controlled.tuned("edges", start=0.0, end=0.5)(asked, steps=4, grid="karras")
    with pytest.warns(DrawingWarning) as said:  # no hint is given: that alone is told
        controlled.tuned("edges", **changes)({"label": 1}, steps=4, grid="karras")
    assert [str(one.message) for one in said] == [
        "the adapter 'edges' is given none of its inputs ('edges'), and draws without them"
    ]


def test_a_window_ends_after_it_begins(controlled: ldmkit.Pipeline) -> None:
    with pytest.raises(ldmkit.SpecError, match="start <= end"):
        controlled.tuned("edges", start=0.6, end=0.5)


@pytest.fixture(scope="module")
def controlled() -> ldmkit.Pipeline:
    plain = tiny_parts.class_pipeline()
    unet = plain.denoiser.config.model_dump()
    control = tiny_parts.part("adapter", "controlnet", {"unet": unet, "hint_widths": [4]}, seed=5)
    return plain.with_adapter("edges", control, {"hint": ldmkit.get("conditioner", "hint")({})})


def test_stronger_than_the_sampler_is_made_for(pipe: ldmkit.Pipeline) -> None:
    """The model's own scale of 3 is CFG's; CFG++ has lambda, 0 to 1."""
    with pytest.warns(DrawingWarning, match="'euler-cfg-pp' .* guidance scales up to 1; 3 gives oversaturated"):
        pipe.prepare(BOTH, sampler="euler-cfg-pp", propose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.prepare(BOTH, sampler="euler-cfg-pp", guidance=0.6, propose=False)
        pipe.prepare(BOTH, sampler="euler", propose=False)
