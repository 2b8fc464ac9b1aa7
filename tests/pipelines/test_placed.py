"""Placed pipelines draw what the ones draw that they were placed from, bit for bit where no dtype changes."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
from test_fusing import CALL, TEXT, low_rank, pipeline

import ldmkit
from ldmkit.errors import LdmkitError
from ldmkit.models.residence import Streamed, home_of

PLACEMENTS: list[Any] = [
    "low-memory",
    "lowest-memory",
    "text:streamed",
    ["denoiser:at-use", "codec:streamed"],
    {"conditioners": "at-use", "denoiser": {"when": "streamed"}},
    ldmkit.Placement(parts={"denoiser": ldmkit.PartPlacement(when="streamed")}, rest="cpu"),
    {},
]
SHARED: list[Any] = [
    "low-memory",
    "conditioners:streamed",
    {"denoiser": "streamed"},
    {"text": "at-use", "pooled": "at-use"},
]


def same(one: ldmkit.Pipeline, other: ldmkit.Pipeline, inputs: Any = TEXT, **call: Any) -> bool:
    call = {**CALL, **call}
    return torch.equal(one(inputs, **call).images, other(inputs, **call).images)


def loaded(pipe: ldmkit.Pipeline) -> list[str]:
    """Parts of which something is fetched."""
    homes = {path: home_of(part) for path, part in pipe.parts.items().items()}
    return [path for path, home in homes.items() if home and any(shelf.users for shelf in home.shelves)]


@pytest.mark.parametrize("placement", PLACEMENTS, ids=str)
def test_mapped_weights_give_the_same_pixels(placement: Any) -> None:
    pipe = ldmkit.load("miniworld")
    inputs = {"text": "a red house by a lake"}
    wanted = pipe(inputs, steps=2, seeds=[3])
    before = {path: part.state_dict() for path, part in pipe.parts.items().items()}
    placed = pipe.placed(placement)
    for _ in range(2):
        found = placed(inputs, steps=2, seeds=[3])
        assert torch.equal(found.images, wanted.images) and not loaded(placed)
    assert found.recipes == wanted.recipes
    assert torch.equal(placed.decode(wanted.latents), pipe.decode(wanted.latents))
    assert torch.equal(placed.encode(wanted.images * 2 - 1), pipe.encode(wanted.images * 2 - 1))
    for path, part in placed.parts.items().items():
        assert part.state_dict().keys() == before[path].keys()
        assert all(torch.equal(tensor, before[path][key]) for key, tensor in part.state_dict().items())


@pytest.mark.parametrize("placement", SHARED, ids=str)
@pytest.mark.parametrize("rest", ["cpu", "disk"])
def test_weights_in_memory_and_shared_towers(placement: Any, rest: str) -> None:
    pipe = pipeline(pooled=True)
    placed = pipe.placed(ldmkit.Placement.read(placement).model_copy(update={"rest": rest}))
    assert same(placed, pipe) and same(placed, pipe) and not loaded(placed)
    assert all(part.placed is None for part in pipe.parts.items().values())


def test_what_is_at_rest_is_not_held() -> None:
    """Nothing but the pipeline that it was placed from keeps weights in memory that lie in no file."""
    pipe = pipeline()
    layer = next(pipe.conditioners["text"].parameters())
    tensor = weakref.ref(layer)
    placed = pipe.placed("low-memory")
    del pipe, layer
    gc.collect()
    assert tensor() is None
    assert placed(TEXT, **CALL).images.isfinite().all()


@pytest.mark.parametrize("placement", ["low-memory", "lowest-memory", "text:streamed denoiser:at-use"])
def test_adapters_plans_and_fusing(placement: str) -> None:
    bare = pipeline()
    adapter = low_rank(bare)
    attached = bare.with_adapter("lora", adapter, {})
    for placed in (attached.placed(placement), bare.placed(placement).with_adapter("lora", adapter, {})):
        assert same(placed, attached) and placed.placement == ldmkit.Placement.read(placement)
        fused = placed.fused()
        assert same(fused, attached.fused()) and home_of(fused.conditioners["text"]) is not None
        assert same(fused.unfused(), attached)
    assert same(attached.fused().placed(placement), attached.fused())
    tuned = attached.placed(placement).tuned("lora", scale=0.3)
    assert same(tuned, attached.tuned("lora", scale=0.3)) and not same(tuned, attached)


def test_a_plan_goes_with_parts_that_are_there() -> None:
    bare = pipeline()
    plan = bare.planned("prepacked")
    for placed in (plan.placed("low-memory"), bare.placed("low-memory").planned("prepacked")):
        assert placed.plan == "prepacked" and same(placed, plan)
    for placement in ("denoiser:streamed", "denoiser:int8", "denoiser:at-use"):
        with pytest.raises(LdmkitError, match=r"compose\.plan-placed.*prepacked"):
            plan.placed(placement)
        with pytest.raises(LdmkitError, match=r"compose\.plan-placed.*auto"):
            bare.placed(placement).planned("auto")
        assert same(bare.placed(placement).planned("eager"), bare.placed(placement))
    with pytest.raises(LdmkitError, match="unknown-plan"):
        bare.placed("denoiser:streamed").planned("prepackd")


def test_another_part_takes_the_place_of_a_placed_one() -> None:
    bare, other = pipeline(), tiny_parts.unet(3, 16)
    changed = bare.placed("lowest-memory").with_(denoiser=other, steps=3)
    assert isinstance(home_of(changed.denoiser), Streamed) and other.placed is None
    assert same(changed, bare.with_(denoiser=other))
    fewer = ldmkit.load("miniworld").placed("text:at-use").with_(conditioners={"text": None})
    assert "text" not in fewer.conditioners


def test_threads_share_a_placed_pipeline() -> None:
    pipe = pipeline()
    seeds = list(range(6))
    wanted = [pipe(TEXT, **{**CALL, "seeds": [seed]}).images for seed in seeds]
    placed = pipe.placed("lowest-memory")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda seed: placed(TEXT, **{**CALL, "seeds": [seed]}).images, seeds))
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True)) and not loaded(placed)


def test_a_stream_that_is_left_gives_everything_back() -> None:
    placed = pipeline().placed("denoiser:at-use text:at-use")
    stream = placed.stream(TEXT, **CALL)
    next(stream)
    assert loaded(placed) == ["denoiser"]
    with pytest.raises(LdmkitError, match=r"run\.busy"):
        placed.placed("low-memory")
    stream.close()  # type: ignore[attr-defined]
    assert not loaded(placed) and threading.active_count() < 50


def test_many_and_gradients_through_the_network() -> None:
    pipe = pipeline()
    placed = pipe.placed("lowest-memory")
    requests = [{"inputs": TEXT, "seed": seed, "steps": 2 + seed % 2} for seed in range(4)]
    for one, other in zip(placed.many(requests, batch=2), pipe.many(requests, batch=2), strict=True):
        assert one.output is not None and other.output is not None
        assert torch.equal(one.output.images, other.output.images)
    gradients = []
    for drawing in (pipe, placed):
        evaluate = drawing.prepare(TEXT, **CALL).evaluate
        x = torch.ones(2, 3, 8, 8, requires_grad=True)
        evaluate(x, 2.0, frozenset())[0].square().sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
    assert torch.equal(*gradients)


def test_saving_keeps_the_bits(tmp_path: Path) -> None:
    pipe = pipeline()
    pipe.save(tmp_path / "bare")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *a, **k: pytest.fail(f"warned: {a}"))
        pipe.placed("lowest-memory").save(tmp_path / "placed")
    files = sorted(path.relative_to(tmp_path / "bare") for path in (tmp_path / "bare").rglob("*") if path.is_file())
    assert files and all((tmp_path / "bare" / f).read_bytes() == (tmp_path / "placed" / f).read_bytes() for f in files)
    for placement in ("text:bfloat16", "denoiser:int8"):
        with pytest.raises(LdmkitError, match=r"compose\.placed-rounded.*save the pipeline"):
            pipe.placed(placement).save(tmp_path / "rounded")
    assert not (tmp_path / "rounded").exists()


def test_moving_and_converting() -> None:
    pipe = pipeline()
    placed = pipe.placed("lowest-memory")
    assert placed.to("cpu") is placed and same(placed, pipe)
    with pytest.raises(LdmkitError, match=r"compose\.placed.*converted"):
        placed.to(torch.bfloat16)
    with pytest.raises(LdmkitError, match=r"compose\.placed.*only its pipeline"):
        placed.denoiser.to("cpu")
    assert same(placed.placed({}), pipe) and placed.placed({}).denoiser.placed is None
    assert same(placed.placed("text:streamed"), pipe)


def test_what_a_placement_refuses() -> None:
    placed = pipeline().placed("lowest-memory")
    with pytest.raises(LdmkitError, match=r"compose\.placed.*trained"):
        placed.conditioning(TEXT, size=(8, 8), grad=True)
    with pytest.raises(LdmkitError, match=r"compose\.placed.*pickled"):
        pickle.dumps(placed.denoiser)
    with pytest.raises(LdmkitError, match=r"compose\.placed.*copied"):
        copy.deepcopy(placed.denoiser)


@pytest.mark.parametrize("rest", ["cpu", "disk"])
def test_weights_that_are_written_to_are_not_lost_without_a_word(rest: str) -> None:
    pipe = ldmkit.load("miniworld")
    with torch.no_grad():  # before: also by `.data`, which leaves no trace but the bytes
        for parameter in pipe.denoiser.parameters():
            parameter.data.mul_(0.5)
    call: dict[str, Any] = {"steps": 1, "seeds": [1]}
    inputs = {"text": "a red house"}
    placed = pipe.placed(ldmkit.Placement.read("lowest-memory").model_copy(update={"rest": rest}))
    assert torch.equal(placed(inputs, **call).images, pipe(inputs, **call).images)
    with torch.no_grad():  # after
        next(p for p in placed.conditioners["text"].parameters() if p.ndim > 1).mul_(2)
    with pytest.raises(LdmkitError, match=r"compose\.stale-placement"):
        placed(inputs, **call)


def test_weights_that_ask_for_gradients_are_computed_with_as_before() -> None:
    """Torch chooses other kernels for them, which round otherwise."""
    pipe = pipeline(pooled=True)
    for part in pipe.parts.items().values():
        part.requires_grad_(True)
    for placement in ("low-memory", "conditioners:streamed denoiser:streamed"):
        placed = pipe.placed(placement)
        assert same(placed, pipe)
        assert all(parameter.requires_grad for parameter in placed.denoiser.parameters())


@pytest.mark.parametrize("derive", [
    lambda pipe: pipe.placed("lowest-memory"),
    lambda pipe: pipe.with_adapter("lora", low_rank(pipe, text=False), {}).fused(),
], ids=["placed", "fused"])  # fmt: skip
def test_a_file_that_changes_is_noticed_by_copies_too(derive: Any, tmp_path: Path) -> None:
    pipe = ldmkit.load(pipeline().save(tmp_path / "model"))
    derived = derive(pipe)
    derived(TEXT, **CALL)
    for file in (tmp_path / "model").rglob("*.safetensors"):
        with file.open("r+b") as opened:
            opened.seek(-8, 2)
            opened.write(bytes(8))
            os.utime(file, (1, 1))
    with pytest.raises(LdmkitError, match=r"run\.file-changed"):
        derived(TEXT, **CALL)
