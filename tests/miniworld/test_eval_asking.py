"""Which conditions a model is asked with, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
from ldmkit_miniworld.asking import (
    MODALITIES,
    asked_sets,
    guidance_of,
    inputs_of,
    modalities_of,
    picture_size,
    required,
)
from ldmkit_miniworld.eval_command import parse_guidance
from ldmkit_miniworld.world import World
from world_models import SCALES, conditioner, world_model

import ldmkit
from ldmkit.errors import InputError


def test_a_model_is_asked_what_it_takes() -> None:
    assert modalities_of(world_model(guided=False)) == MODALITIES
    assert modalities_of(world_model("layout", "label", guided=False)) == ("label", "layout")


def test_other_labels_are_refused() -> None:
    with pytest.raises(InputError, match=r"eval-labels.*label.*meadow"):
        modalities_of(world_model("label", parts={"label": conditioner("label", names=("forest", "town"))}))
    with pytest.raises(InputError, match=r"eval-labels.*red house"):
        modalities_of(world_model("layout", parts={"layout": conditioner("layout", names=("cat",))}))
    with pytest.raises(InputError, match=r"eval-labels.*maps have 182 labels"):
        modalities_of(world_model("label", "semantic", parts={"semantic": conditioner("semantic", n_classes=182)}))


def test_a_model_without_any_input_of_the_world_is_refused() -> None:
    pipe = ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"prompt": tiny_parts.label()},
    )
    with pytest.raises(InputError, match=r"eval-inputs.*prompt"):
        modalities_of(pipe)


def test_sets_of_conditions() -> None:
    two = ("text", "label")
    assert asked_sets(None, two) == (("text",), ("label",), ("text", "label"))
    assert asked_sets("all", MODALITIES) == (MODALITIES,)
    assert asked_sets("layout+text, text+layout,alone", MODALITIES)[:2] == (("text", "layout"), ("text",))
    assert len(asked_sets("combinations", MODALITIES)) == 6 + 4 + 1
    assert len(asked_sets("alone,combinations,all", MODALITIES)) == 15


def test_what_a_model_cannot_do_without_is_in_every_set() -> None:
    assert asked_sets(None, ("text", "layout"), ("layout",)) == (("layout",), ("text", "layout"))
    with pytest.raises(InputError, match=r"eval-conditions.*without layout"):
        asked_sets("text", ("text", "layout"), ("layout",))
    with pytest.raises(InputError, match="eval-conditions"):
        asked_sets("alone", ("text", "layout"), ("text", "layout"))
    always = conditioner("label", null_class=None)
    assert required(world_model("text", "label", parts={"label": always}, guided=False), ("text", "label")) == (
        "label",
    )


@pytest.mark.parametrize(("text", "said"), [("txt", "did you mean 'text'"), ("semantic", "no condition of this model")])
def test_unknown_conditions_are_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        asked_sets(text, ("text", "label"))


@pytest.mark.parametrize("size", [8, 72, 1024])
def test_sizes_that_the_oracle_cannot_read_are_refused(size: int) -> None:
    with pytest.raises(InputError, match="eval-size"):
        picture_size(world_model("label", size=64), size)


def test_the_size_is_the_models_own_unless_told() -> None:
    assert picture_size(world_model("label", size=128)) == 128
    assert picture_size(world_model("label", size=128), 64) == 64


def test_scales_of_absent_conditions_change_nothing() -> None:
    pipe = world_model()
    given: dict[str, Any] = inputs_of(World(64).sample("test", 0), ("layout",))
    left = guidance_of(pipe, None, ("layout",))
    assert left["config"]["scales"] == {"layout": SCALES["layout"]}
    full, short = (pipe(given, steps=2, guidance=guidance).latents for guidance in (None, left))
    # the views that were left out equal others: only the order of the sum differs
    assert torch.allclose(full, short, atol=1e-5)
    assert guidance_of(pipe, None, ()) == "none"
    assert guidance_of(pipe, {"text": 2.0, "label": 3.0}, ("label",)) == {"label": 3.0}
    assert guidance_of(pipe, 5.0, ("label",)) == 5.0


def test_guidance_on_the_command_line() -> None:
    assert parse_guidance("text=4,layout=2") == {"text": 4.0, "layout": 2.0}
    assert parse_guidance("3") == 3.0
    assert parse_guidance("cfg:scale=4") == {"type": "cfg", "config": {"scale": 4}}
    assert parse_guidance(None) is None


def test_inputs_are_those_asked_for(tmp_path: Path) -> None:
    picture = World(64).sample("test", 3)
    assert inputs_of(picture, ("label", "text")) == {"label": picture.label, "text": picture.caption}
