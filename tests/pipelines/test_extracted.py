"""Inputs that an extractor makes: the hint that was written to a file, what recipes hold of it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_diffusers as tiny
import torch
from ldmkit_extractors.canny import Canny
from PIL import Image
from torch import Tensor

import ldmkit
from ldmkit.testing.extractor import drawing

PHOTO = drawing((32, 32))
CANNY = {"type": "canny", "config": {"low": 20.0, "high": 60.0}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tiny.controlnet_pipeline(), tmp_path_factory.mktemp("published") / "control")


@pytest.fixture(scope="module")
def pipe(folder: Path) -> ldmkit.Pipeline:
    return ldmkit.load(folder)


def draw(pipe: ldmkit.Pipeline, hint: Any, **options: Any) -> ldmkit.Output:
    return pipe({"text": "a house", "hint": hint}, steps=2, seeds=[3], **options)


def file_of(hint: Tensor, path: Path) -> Path:
    Image.fromarray(ldmkit.to_levels(hint)).save(path)
    return path


def test_every_way_to_say_it_is_the_hint_in_a_file(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    photo = file_of(PHOTO, tmp_path / "photo.png")
    canny = Canny(low=20, high=60)
    wanted = draw(pipe, file_of(canny.extract(PHOTO), tmp_path / "hint.png")).latents
    assert not torch.equal(wanted, draw(pipe, photo).latents)
    said: list[Any] = [
        ldmkit.Extracted(photo, canny),
        ldmkit.Extracted(PHOTO, CANNY),
        ldmkit.Extracted(str(photo), {"type": "canny", "low": 20.0, "high": 60.0}),
        {"picture": photo, "extract": CANNY},
        {"extract": canny, "picture": ldmkit.to_levels(PHOTO)},
    ]
    for one in said:
        assert torch.equal(draw(pipe, one).latents, wanted), one
    default = draw(pipe, ldmkit.Extracted(photo, "canny")).latents
    assert torch.equal(default, draw(pipe, Canny().extract(PHOTO)).latents)


def test_the_recipe_holds_photograph_and_extractor(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    photo = PHOTO.clone()
    prepared = pipe.prepare({"text": "a house", "hint": ldmkit.Extracted(photo, CANNY)}, steps=2, seeds=[3])
    photo.zero_()  # the caller's buffer is filled again
    output = pipe.run(prepared)
    recipe = json.loads(json.dumps(output.recipes[0]))
    held = recipe["inputs"]["hint"]
    assert held["extract"]["type"] == "canny" and held["extract"]["config"]["low"] == 20.0
    assert held["extract"]["distribution"] == "ldmkit" and held["extract"]["version"] == ldmkit.__version__
    assert torch.equal(ldmkit.read_picture(held["picture"]), PHOTO)
    assert torch.equal(ldmkit.replay(pipe, recipe).latents, output.latents)
    [path] = output.save(tmp_path / "drawn.png")
    again = ldmkit.replay(pipe, ldmkit.read_recipe(path))
    assert torch.equal(again.latents, output.latents) and again.recipes == output.recipes
    assert pipe.recipe({"text": "a house", "hint": {"picture": PHOTO, "extract": CANNY}}, steps=2, seeds=[3]) == recipe


def test_batches_and_many(pipe: ldmkit.Pipeline) -> None:
    """Each row its own hint; rows that share an input share its extraction; requests are joined in one batch."""
    shared = ldmkit.Extracted(PHOTO, CANNY)
    other = ldmkit.Extracted(PHOTO.flip(-1), "canny")
    rows = [{"text": "a", "hint": shared}, {"text": "b", "hint": other}, {"text": "c", "hint": PHOTO}]
    whole = pipe(rows, steps=2, seeds=[0, 1, 2])
    kinds = [type(recipe["inputs"]["hint"]) for recipe in whole.recipes]
    assert kinds == [dict, dict, str]
    requests: list[Any] = [{"inputs": row, "seed": seed, "steps": 2} for seed, row in enumerate(rows)]
    many = [one.output for one in pipe.many(requests, batch=3)]
    for row, (drawn, recipe) in enumerate(zip(many, whole.recipes, strict=True)):
        assert drawn is not None and drawn.recipes[0] == recipe
        assert torch.allclose(drawn.latents[0], whole.latents[row], atol=1e-5)  # rounding of other batches
        alone = ldmkit.replay(pipe, recipe)
        assert torch.allclose(alone.latents[0], whole.latents[row], atol=1e-5)


def test_negatives_are_extracted_too(pipe: ldmkit.Pipeline) -> None:
    hint = Canny().extract(PHOTO)
    options: dict[str, Any] = {"steps": 2, "guidance": 3.0}
    wanted = pipe({"hint": hint, "text": "a"}, negative={"text": "b"}, **options)
    found = pipe({"hint": ldmkit.Extracted(PHOTO, "canny"), "text": "a"}, negative={"text": "b"}, **options)
    assert torch.equal(found.latents, wanted.latents)
    conditioning = pipe.conditioning({"hint": ldmkit.Extracted(PHOTO, "canny"), "text": "a"}, size=(32, 32))
    same = pipe.conditioning({"hint": hint, "text": "a"}, size=(32, 32))
    assert [repr(a.signal) for a in conditioning.parts] == [repr(b.signal) for b in same.parts]


def test_the_size_is_the_hint_s_and_nothing_is_resized(pipe: ldmkit.Pipeline) -> None:
    small = ldmkit.Extracted(drawing((32, 64)), "canny")
    assert draw(pipe, small).images.shape[-2:] == (32, 64)
    with pytest.raises(ldmkit.InputError) as found:
        draw(pipe, small, size=(32, 32))
    with pytest.raises(ldmkit.InputError) as wanted:
        draw(pipe, Canny().extract(drawing((32, 64))), size=(32, 32))
    assert str(found.value) == str(wanted.value)


def test_a_cascade_hands_them_to_its_stages(pipe: ldmkit.Pipeline) -> None:
    """Each stage that has the input extracts it; what a stage makes of an input is not in the recipe of the next."""
    cascade = ldmkit.Cascade.of({"base": pipe, "again": pipe}, {"again": {"inputs": {"hint": "base"}}})
    options: dict[str, Any] = {"steps": 2, "seeds": [1]}
    drawn = cascade({"text": "a", "hint": ldmkit.Extracted(PHOTO, "canny")}, **options)
    assert torch.equal(drawn.images, cascade({"text": "a", "hint": Canny().extract(PHOTO)}, **options).images)
    recipe = json.loads(json.dumps(drawn.recipes[0]))
    inputs = {name: stage["inputs"].get("hint") for name, stage in recipe["stages"].items()}
    assert inputs["base"]["extract"]["type"] == "canny" and inputs["again"] is None
    assert torch.equal(ldmkit.replay(cascade, recipe).images, drawn.images)


class Thirds(ldmkit.Extractor):
    """No levels."""

    def extract(self, value: Tensor) -> Tensor:
        return value / 3


class NoSize(Thirds):
    def hint_size(self, value: Tensor) -> Any:
        return None


class Breaks(ldmkit.Extractor):
    def extract(self, value: Tensor) -> Tensor:
        raise KeyError("broken")


REFUSED: dict[str, tuple[Any, str, str]] = {
    "no such extractor": (ldmkit.Extracted(PHOTO, "cany"), "plugin.unknown", "canny"),
    "no option": (ldmkit.Extracted(PHOTO, {"type": "canny", "config": {"lo": 3}}), "spec.unknown-key", "low"),
    "negative": (ldmkit.Extracted(PHOTO, {"type": "canny", "config": {"low": -3}}), "spec.invalid", "low"),
    "none": (ldmkit.Extracted(PHOTO, None), "input.strategy-type", "inputs.hint"),
    "number": ({"picture": PHOTO, "extract": 3}, "input.strategy-type", "inputs.hint"),
    "another kind": (
        {"picture": PHOTO, "extract": ldmkit.get("sampler", "ddim")()},
        "input.strategy-type",
        "Extractor",
    ),
    "no file": ({"picture": "nowhere.png", "extract": "canny"}, "input.picture-missing", "nowhere.png"),
    "no picture": ({"picture": 5, "extract": "canny"}, "input.picture-type", "inputs.hint"),
    "another key": ({"picture": PHOTO, "extract": "canny", "low": 3}, "input.picture-type", "inputs.hint"),
    "16 bits": ({"picture": Image.new("I;16", (8, 8)), "extract": "canny"}, "input.picture-depth", "inputs.hint"),
    "no contract": ({"picture": PHOTO, "extract": Thirds()}, "run.bad-return", "Thirds"),
    "no size": ({"picture": PHOTO, "extract": NoSize()}, "run.extractor-failed", "NoSize"),
    "raises": ({"picture": PHOTO, "extract": Breaks()}, "run.extractor-failed", "Breaks"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(pipe: ldmkit.Pipeline, name: str) -> None:
    given, code, says = REFUSED[name]
    with pytest.raises(ldmkit.LdmkitError) as error:
        draw(pipe, given)
    assert error.value.code == code and says in str(error.value), str(error.value)


def test_masked_pixels_reach_the_network_as_minus_one(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    """The hint of inpainting: in [0, 1], and -1 where it says nothing; exact through recipes and files."""
    hint = PHOTO.clone()
    hint[:, 4:20, 6:18] = ldmkit.MASKED
    conditioner = next(part for name, part in pipe.conditioners.items() if name == "hint")
    [plane] = conditioner.forward([conditioner.parse(hint, "hint")]).value
    assert set(plane[:, 4:20, 6:18].unique().tolist()) == {-1.0}
    assert torch.equal(plane[:, 20:], (PHOTO[:, 20:] + 1) / 2)
    output = draw(pipe, hint)
    assert torch.equal(ldmkit.replay(pipe, output.recipes[0]).latents, output.latents)
    np.save(tmp_path / "hint.npy", hint.numpy())
    assert torch.equal(draw(pipe, str(tmp_path / "hint.npy")).latents, output.latents)
    hint[0, 0, 0] = -3.0  # one channel alone
    with pytest.raises(ldmkit.InputError, match="picture-range"):
        draw(pipe, hint)
