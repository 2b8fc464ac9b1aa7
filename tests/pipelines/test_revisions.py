"""Revisions of samplers in what is kept: recipes record them, older recipes and pipelines without them still load."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import tiny_parts
import torch

import ldmkit
from ldmkit.replaying import replay

CLASSES = {"label": 1}


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    return tiny_parts.class_pipeline(sampler={"type": "dpmpp-2m"}, grid={"type": "karras"})


def test_a_recipe_records_the_revision_and_replays(pipe: ldmkit.Pipeline) -> None:
    out = pipe(CLASSES, steps=3, sampler="lms")
    recipe = json.loads(json.dumps(out.recipes[0]))
    assert recipe["sampler"]["config"]["revision"] == 1
    assert torch.equal(replay(pipe, recipe).images, out.images)


def test_a_recipe_from_before_the_field_replays(pipe: ldmkit.Pipeline) -> None:
    out = pipe(CLASSES, steps=3)
    old = copy.deepcopy(out.recipes[0])
    del old["sampler"]["config"]["revision"]
    assert torch.equal(replay(pipe, old).images, out.images)


def test_a_revision_that_is_not_there_is_named_with_those_that_are(pipe: ldmkit.Pipeline) -> None:
    recipe = copy.deepcopy(pipe(CLASSES, steps=2).recipes[0])
    recipe["sampler"]["config"]["revision"] = 7
    with pytest.raises(ldmkit.LdmkitError, match=r"revision.*should be 1.*7"):
        replay(pipe, recipe)


def test_a_saved_pipeline_says_no_more_than_it_was_told(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    """The spec holds what differs from the defaults; a revision that is given is kept."""
    assert pipe.spec.to_json()["defaults"]["sampler"]["config"] == {}
    pinned = tiny_parts.class_pipeline(sampler={"type": "heun", "config": {"revision": 1}})
    loaded = ldmkit.load(pinned.save(tmp_path / "pinned"))
    assert loaded.spec.to_json()["defaults"]["sampler"]["config"] == {"revision": 1}
    assert loaded(CLASSES, steps=2).recipes[0]["sampler"]["config"]["revision"] == 1
