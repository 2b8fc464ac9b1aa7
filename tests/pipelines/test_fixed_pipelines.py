"""Pipelines and cascades are not changed once they are made: who assigns a part is told of the call for another one."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch

import ldmkit

L = {"label": 1}


def other_denoiser(pipe: ldmkit.Pipeline) -> Any:
    return tiny_parts.part("denoiser", "unet", pipe.denoiser.config.model_dump(), seed=99)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("codec", r"pipe\.with_\(codec="),
        ("denoiser", r"pipe\.with_\(denoiser="),
        ("process", r"pipe\.with_\(process="),
        ("conditioners", r"pipe\.with_\(conditioners="),
        ("wiring", r"pipe\.with_\(wiring="),
        ("defaults", r"pipe\.with_\(sampler="),
        ("adapters", r"pipe\.with_adapter\("),
        ("network", r"pipe\.planned\("),
        ("plan", r"pipe\.planned\("),
        ("placement", r"pipe\.placed\("),
        ("device", r"pipe\.to\("),
        *((name, "cannot be changed") for name in ("parts", "origin", "load_options", "merged", "rounded", "spec")),
        *((name, "cannot be changed") for name in ("inputs", "part_specs", "save", "run", "to", "_unfused")),
        ("vae", r"no attribute 'vae'.*pipe\.with_\(codec="),  # names of other libraries
        ("unet", r"no attribute 'unet'.*pipe\.with_\(denoiser="),
        ("text_encoder", r"no attribute.*pipe\.with_\(conditioners="),
        ("scheduler", r"no attribute 'scheduler'.*sampler=\.\.\. and grid="),
        ("foo", r"no attribute 'foo'"),
    ],
)
def test_nothing_can_be_assigned(name: str, instead: str) -> None:
    pipe = tiny_parts.class_pipeline()
    assert pipe.spec.hash  # what it keeps of its own
    before = dict(vars(pipe))
    with pytest.raises(AttributeError, match=instead):
        setattr(pipe, name, getattr(pipe, name, None))
    if hasattr(pipe, name):
        with pytest.raises(AttributeError, match="cannot be changed"):
            delattr(pipe, name)
    assert vars(pipe) == before


@pytest.mark.parametrize("name", ["conditioners", "adapters", "wiring", "load_options", "rounded"])
def test_mappings_of_a_pipeline_are_read_only(name: str) -> None:
    pipe = tiny_parts.class_pipeline()
    mapping = getattr(pipe, name)
    before = dict(mapping)
    for change in (
        lambda: mapping.update(x=1),
        lambda: mapping.__setitem__("label", None),
        lambda: mapping.__delitem__("label"),
        lambda: mapping.__ior__({"x": 1}),
        lambda: mapping.setdefault("x", 1),
        lambda: mapping.pop("label", None),
        mapping.popitem,
        mapping.clear,
    ):
        with pytest.raises(TypeError, match=r"fixed once it is made.*with_"):
            change()
    assert mapping == before and {**mapping} == before and type(mapping | {}) is dict
    assert getattr(pipe.parts, name, mapping) == before


def test_what_is_drawn_is_what_is_saved(tmp_path: Path) -> None:
    """By the call that the error names."""
    pipe = tiny_parts.class_pipeline()
    other = pipe.with_(denoiser=other_denoiser(pipe))
    wanted = other(L, steps=2).images
    assert not torch.equal(wanted, pipe(L, steps=2).images)
    other.save(tmp_path / "m")
    assert torch.equal(ldmkit.load(tmp_path / "m")(L, steps=2).images, wanted)


def test_a_spec_that_was_handed_out_is_a_copy(tmp_path: Path) -> None:
    pipe = tiny_parts.class_pipeline()
    before, spec = pipe.spec.hash, pipe.spec
    spec.denoiser.config["channels"] = 5
    spec.conditioners.clear()
    assert pipe.spec.hash == before
    pipe.save(tmp_path / "m")
    assert ldmkit.load(tmp_path / "m").spec.hash == before


def test_mappings_that_a_pipeline_is_made_from_are_copied() -> None:
    pipe = tiny_parts.class_pipeline()
    conditioners, wiring = dict(pipe.conditioners), {"label": {"null": "keep"}}
    made = ldmkit.Pipeline.of(
        codec=pipe.codec, denoiser=pipe.denoiser, process=pipe.process, conditioners=conditioners, wiring=wiring
    )
    conditioners.clear()
    wiring["label"]["null"] = "zero"
    assert list(made.conditioners) == ["label"] and made.wiring["label"].null == "keep"


def test_pipelines_are_still_copied_and_pickled() -> None:
    pipe = tiny_parts.class_pipeline()
    wanted = pipe(L, steps=2).images
    for other in (copy.deepcopy(pipe), pickle.loads(pickle.dumps(pipe))):
        assert torch.equal(other(L, steps=2).images, wanted)
        with pytest.raises(AttributeError, match="cannot be changed"):
            other.denoiser = pipe.denoiser
        with pytest.raises(TypeError, match="fixed"):
            other.conditioners.clear()


def test_cascades() -> None:
    cascade = ldmkit.Cascade.of({"base": tiny_parts.class_pipeline()})
    for name, instead in (("stages", r"ldmkit\.Cascade\.of"), ("wiring", "cannot be"), ("origin", "cannot be")):
        with pytest.raises(AttributeError, match=instead):
            setattr(cascade, name, getattr(cascade, name))
    with pytest.raises(TypeError, match="fixed"):
        cascade.stages["up"] = cascade.stages["base"]


def test_a_cascade_with_another_stage_is_not_the_one_that_was_loaded(tmp_path: Path) -> None:
    """Its recipes would name a folder whose weights are others."""
    ldmkit.Cascade.of({"base": tiny_parts.class_pipeline()}).save(tmp_path / "c")
    cascade = ldmkit.Cascade.load(tmp_path / "c")
    base = cascade.stages["base"]
    assert cascade.planned("eager").origin == cascade.origin == str(tmp_path / "c")
    assert cascade.with_(base=base.with_(denoiser=other_denoiser(base))).origin is None
