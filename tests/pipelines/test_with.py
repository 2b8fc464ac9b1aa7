"""Pipelines derived from others: what is not exchanged stays, the wiring and the pixels too."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_parts
import torch

import ldmkit


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    return tiny_parts.scene_pipeline()


def drawn(pipe: ldmkit.Pipeline, **options: Any) -> torch.Tensor:
    return pipe({"label": 1}, seeds=3, steps=2, **options).images


def test_nothing_changed_draws_the_same_and_keeps_the_wiring() -> None:
    pipe = ldmkit.load("miniworld")
    same = pipe.with_()
    assert same is not pipe and same.wiring == pipe.wiring and same.parts.routes == pipe.parts.routes
    boxes = [{"label": "red house", "box": [0.1, 0.4, 0.5, 0.9]}]
    asked = {"label": "meadow", "layout": boxes}
    assert torch.equal(same(asked, steps=1).images, pipe(asked, steps=1).images)


def test_defaults(pipe: ldmkit.Pipeline) -> None:
    other = pipe.with_(sampler="euler", guidance=ldmkit.get("guidance", "cfg")(scale=3.0), steps=2)
    assert other.defaults.sampler.type == "euler" and other.defaults.steps == 2 and pipe.defaults.sampler.type == "ddim"
    assert other.defaults.size == pipe.defaults.size
    assert torch.equal(other({"label": 1}, seeds=3).images, drawn(pipe, sampler="euler", guidance=3.0))


def test_a_conditioner_in_anothers_place_has_its_wiring(pipe: ldmkit.Pipeline) -> None:
    name = next(name for name, part in pipe.conditioners.items() if type(part).__name__ == "Label")
    same = pipe.with_(conditioners={name: pipe.conditioners[name]})
    assert same.wiring == pipe.wiring and torch.equal(drawn(same), drawn(pipe))


def test_one_is_left_out(pipe: ldmkit.Pipeline) -> None:
    fewer = pipe.with_(conditioners={"label": None})
    assert set(fewer.conditioners) == set(pipe.conditioners) - {"label"} and "label" in pipe.conditioners
    assert fewer.parts.routes == {name: slot for name, slot in pipe.parts.routes.items() if name != "label"}


@pytest.mark.parametrize(("changes", "code"), [
    ({"samplers": "euler"}, "input.unknown-argument"),
    ({"sampler": "none-such"}, None),
    ({"conditioners": {"none": None}}, "compose.unknown-conditioner"),
    ({"codec": "kl"}, "input.wrong-kind"),
    ({"steps": 0}, "spec.invalid"),
    ({"wiring": {"none": {}}}, "compose.unknown-conditioner"),
])  # fmt: skip
def test_what_cannot_be(pipe: ldmkit.Pipeline, changes: dict[str, Any], code: str | None) -> None:
    with pytest.raises(ldmkit.LdmkitError) as caught:
        drawn(pipe.with_(**changes))
    assert code is None or caught.value.code == code


def test_adapters_and_plan_stay() -> None:
    pipe = tiny_parts.class_pipeline().planned("prepacked")
    other = pipe.with_(steps=2)
    assert other.plan == "prepacked" and other.network is pipe.network
