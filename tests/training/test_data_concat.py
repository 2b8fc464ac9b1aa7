"""Several sources one after another: lengths add up, and weights say how often each is drawn."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from data_sources import coco, lines, opened, picture, section, tar
from ldmkit_codecs.identity import IdentityCodec
from ldmkit_training.before.plan import make_plan
from ldmkit_training.data.batches import Batches, held_out, validation_batches
from ldmkit_training.data.cache.reading import latent_cache
from ldmkit_training.data.identity import differing, identity
from ldmkit_training.data.order import passes, place
from ldmkit_training.data.sources.concat import _whole
from ldmkit_training.loop.engine import Engine

from ldmkit.errors import InputError, LdmkitError, SpecError

RED, BLUE = 5, 3


@pytest.fixture
def sources(tmp_path: Path) -> list[dict[str, Any]]:
    """Five red pictures and three blue ones of the same file names, with labels of the bundled toy's kind."""
    for name, count, colour in (("red", RED, (200, 0, 0)), ("blue", BLUE, (0, 0, 200))):
        for number in range(count):
            picture(tmp_path / name / f"{number}.png", (16, 16), colour)
        rows = [{"file_name": f"{number}.png", "label": "snow"} for number in range(count)]
        lines(tmp_path / name / "metadata.jsonl", *rows)
    return [{"type": "folder", "config": {"folder": name}} for name in ("red", "blue")]


def test_samples_of_all_sources_stand_one_after_another(tmp_path: Path, sources: list[Any]) -> None:
    data = opened("concat", tmp_path, sources=sources)
    assert len(data) == RED + BLUE and data.mixture == ()
    assert [data.id(i) for i in (0, RED - 1, RED)] == ["0/0.png", "0/4.png", "1/0.png"]
    for index in range(len(data)):
        sample = data[index]
        assert sample.id == data.id(index) and sample.inputs == data.inputs(index) == data.known(index)
        assert sample.image[0, 0].tolist() == ([200, 0, 0] if index < RED else [0, 0, 200])
    assert [note for note in data.notes if "samples" in note] == [
        "sources[0] (folder): 5 samples", "sources[1] (folder): 3 samples",
    ]  # fmt: skip
    with pytest.raises(IndexError):
        data[RED + BLUE]
    assert pickle.loads(pickle.dumps(data)).id(RED) == "1/0.png"
    epoch = [index for _, index in (place(7, len(data), i) for i in range(len(data)))]
    assert sorted(epoch) == list(range(RED + BLUE)), "without weights an epoch has each sample once"


def test_weights_are_kept_exactly_and_every_source_has_its_own_epochs(tmp_path: Path, sources: list[Any]) -> None:
    data = opened("concat", tmp_path, sources=sources, weights=[1, 3])
    assert data.mixture == ((RED, 1), (BLUE, 3))
    drawn = [place(7, len(data), i, data.mixture) for i in range(400)]
    for first in range(0, 400, 4):
        assert sum(index >= RED for _, index in drawn[first : first + 4]) == 3
    for low, high in ((0, RED), (RED, RED + BLUE)):
        own = [(epoch, index) for epoch, index in drawn if low <= index < high]
        size = high - low
        for number in range(len(own) // size):
            turn = own[number * size : number * size + size]
            assert {epoch for epoch, _ in turn} == {number} and sorted(i for _, i in turn) == list(range(low, high))
    orders = {tuple(i for _, i in drawn[first : first + 4]) for first in range(0, 400, 4)}
    assert len(orders) > 10, "the places of the sources within a block change"
    assert passes(400, len(data), data.mixture) == (100 / RED, 300 / BLUE)


@pytest.mark.parametrize(
    ("weights", "whole"),
    [([3, 1], [3, 1]), ([0.75, 0.25], [3, 1]), ([0.1, 0.2], [1, 2]), ([1e-3, 1], [1, 1000]), ([2, 4, 6], [1, 2, 3])],
)
def test_weights_mean_what_is_written(weights: list[float], whole: list[int]) -> None:
    assert _whole(weights) == whole


@pytest.mark.parametrize("weights", [None, [1, 3]])
def test_batches_do_not_depend_on_processes_or_on_where_a_run_was_resumed(
    tmp_path: Path, sources: list[Any], weights: Any
) -> None:
    data, rule = opened("concat", tmp_path, sources=sources, weights=weights), section(batch=4, mirror=0.5)
    whole = {step: parts[0].ids for step, parts in islice(Batches(data, rule, seed=3).steps(0), 12)}
    late = {step: parts[0].ids for step, parts in islice(Batches(data, rule, seed=3).steps(7), 5)}
    assert late == {step: whole[step] for step in late}
    for step in range(12):
        shared = [Batches(data, rule, seed=3, rank=rank, world=2).at(step)[0].ids for rank in (0, 1)]
        assert shared[0] + shared[1] == whole[step]
    ahead = Batches(data, section(batch=4, mirror=0.5, workers=2), seed=3).at(5)[0]
    assert ahead.ids == whole[5]


def test_damaged_samples_are_replaced_within_their_source(tmp_path: Path, sources: list[Any]) -> None:
    (tmp_path / "blue/2.png").write_bytes(b"\x89PNG")
    data = opened("concat", tmp_path, sources=sources, weights=[1, 3])
    rule = section(batch=4, damaged="skip", size=[16, 16], cache={"folder": "kept"})
    read = Batches(data, rule, seed=0)
    cache = latent_cache(data, rule, IdentityCodec(), tmp_path)
    kept = Batches(data, rule, seed=0, cache=cache)
    for step in range(6):
        ids = read.at(step)[0].ids
        assert Counter(name[0] for name in ids) == {"0": 1, "1": 3} and "1/2.png" not in ids
        assert kept.at(step)[0].ids == ids
    assert set(read.report.damaged) == set(kept.report.damaged) == {"1/2.png"}
    for number in range(BLUE):
        (tmp_path / f"blue/{number}.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match="none of the 3 samples can be read"):
        Batches(opened("concat", tmp_path, sources=sources, weights=[1, 3]), rule, seed=0).at(0)


def test_held_out_samples_are_of_every_source(tmp_path: Path, sources: list[Any]) -> None:
    """The first four would all be red."""
    data = opened("concat", tmp_path, sources=sources)
    ids = [name for batch in validation_batches(data, section(), 4) for name in batch.ids]
    assert ids == ["0/0.png", "0/2.png", "0/4.png", "1/1.png"]
    assert held_out(3, 64) == held_out(3, None) == [0, 1, 2] and held_out(10, 2) == [0, 5]


def test_a_run_of_two_sources_and_its_plan(tmp_path: Path, sources: list[Any]) -> None:
    def recipe(weights: Any, steps: int) -> Any:
        data = tiny.denoiser_data(tmp_path / "run", f"steps={steps}", "validation=null", "data.validation=null")
        data["data"]["train"] = {"type": "concat", "config": {"sources": sources, "weights": weights}}
        return tiny.parse_recipe(data)

    plan = make_plan(recipe([1, 3], 5), tmp_path)
    assert plan.samples == RED + BLUE and "epochs of each source: 1, 5" in plan.notes  # 20 rows
    assert "sources[1] (folder): 3 samples, 0.75 of the draws" in plan.notes
    assert Engine(recipe([1, 3], 1), tmp_path).run().step == 1
    assert Engine(recipe([1, 3], 2), tmp_path).run().step == 2
    with pytest.raises(SpecError) as caught:
        Engine(recipe([1, 1], 3), tmp_path)
    assert caught.value.code == "spec.other-recipe", "other weights are other data"


def test_identity_and_fingerprint_follow_the_sources(tmp_path: Path, sources: list[Any]) -> None:
    def made(**config: Any) -> tuple[dict[str, Any], str]:
        data = opened("concat", tmp_path, sources=sources, **config)
        return identity(data), data.fingerprint

    plain, weighted = made(), made(weights=[1, 3])
    assert differing(plain[0], made()[0]) == [] and plain[0]["exact"]
    assert differing(plain[0], weighted[0]) == ["how often each source is drawn"]
    picture(tmp_path / "blue/1.png", (16, 16), (0, 0, 201))
    assert differing(plain[0], made()[0]) == ["pictures or maps, or how they are read"] and made()[1] != plain[1]


def test_sources_whose_inputs_differ(tmp_path: Path, sources: list[Any]) -> None:
    picture(tmp_path / "bare/0.png", (16, 16))
    mixed = [*sources, {"type": "folder", "config": {"folder": "bare"}}]
    with pytest.raises(InputError) as caught:
        opened("concat", tmp_path, sources=mixed)
    assert caught.value.code == "input.missing-counterpart"
    assert "sources[2] (folder) has no input 'label', which sources[0] (folder) has" in caught.value.what
    data = opened("concat", tmp_path, sources=mixed, missing="allow")
    assert data[RED + BLUE].inputs == {} and any("has no input 'label'" in note for note in data.notes)
    lines(tmp_path / "bare/metadata.jsonl", {"file_name": "0.png", "label": []})
    mixed[2] = {"type": "folder", "config": {"folder": "bare", "boxes": ["label"]}}
    with pytest.raises(SpecError, match=r"'none' in sources\[0\] \(folder\) and 'boxes' in sources\[2\]") as wrong:
        opened("concat", tmp_path, sources=mixed)
    assert wrong.value.code == "spec.inputs-differ"


def test_classes_by_number_are_numbered_alike(tmp_path: Path) -> None:
    for name in ("a/cat", "a/dog", "b/dog", "b/newt"):
        picture(tmp_path / name / "0.png")
    config: list[dict[str, Any]] = [{"folder": "a", "numbers": True}, {"folder": "b", "numbers": True}]
    with pytest.raises(InputError, match=r"'label' 0 is 'cat' in .* and 'dog' in ") as caught:
        opened("concat", tmp_path, sources=[{"type": "classes", "config": one} for one in config])
    assert caught.value.code == "input.numbering"
    for one in config:
        one |= {"classes": ["cat", "dog", "newt"], "missing": "allow"}
    data = opened("concat", tmp_path, sources=[{"type": "classes", "config": one} for one in config])
    assert [data.inputs(i)["label"] for i in range(4)] == [0, 1, 1, 2] and list(data.numbering["label"])[2] == "newt"


def test_sources_of_every_kind(tmp_path: Path) -> None:
    picture(tmp_path / "p/a.png"), picture(tmp_path / "p/b.png")
    coco(tmp_path / "boxes.json")
    buffer = (tmp_path / "p/a.png").read_bytes()
    tar(tmp_path / "s.tar", {"1.png": buffer, "1.json": b'{"layout": [{"label": "cell", "box": [0, 0, 1, 1]}]}'})
    sources = [
        {"type": "coco", "config": {"annotations": "boxes.json", "pictures": "p"}},
        {"type": "shards", "config": {"shards": "s.tar"}},
    ]
    data = opened("concat", tmp_path, sources=sources)
    assert data.geometry == {"layout": "boxes"} and data.id(2) == "1/s.tar/1.png"
    batch = Batches(data, section(batch=3, fit="random-crop", mirror=0.5), seed=0).at(0)[0]
    assert {name[0] for name in batch.ids} == {"0", "1"} and all("layout" in row for row in batch.inputs)


def test_a_refused_join_points_here(tmp_path: Path, sources: list[Any]) -> None:
    with pytest.raises(LdmkitError, match=r"both have the input 'label'.*type: concat"):
        opened("join", tmp_path, sources=sources)
    for source in sources:
        (tmp_path / source["config"]["folder"] / "metadata.jsonl").unlink()
    with pytest.raises(InputError, match=r"its pictures would be lost.*type: concat"):
        opened("join", tmp_path, sources=sources)
    picture(tmp_path / "alone/z.png")
    lines(tmp_path / "alone/metadata.jsonl", {"file_name": "z.png", "text": "x"})
    with pytest.raises(InputError, match=r"no name is in two sources.*type: concat"):
        opened("join", tmp_path, sources=[sources[0], {"type": "folder", "config": {"folder": "alone"}}])


def test_weights_that_cannot_be_kept(tmp_path: Path, sources: list[Any]) -> None:
    for weights, says in (
        ([1], "1 weights for 2 sources"), ([1, 0], "greater than 0"), ([1, float("nan")], "finite"),
        ([0.333333333, 0.666666667], "take rounder ones"), ([1e-320, 1], "take rounder ones"),
    ):  # fmt: skip
        with pytest.raises(SpecError, match=says):
            opened("concat", tmp_path, sources=sources, weights=weights)
    inner = {"type": "concat", "config": {"sources": sources, "weights": [1, 2]}}
    with pytest.raises(SpecError) as caught:
        opened("concat", tmp_path, sources=[inner, sources[0]])
    assert caught.value.code == "spec.weights-twice"
    nested = opened("concat", tmp_path, sources=[{"type": "concat", "config": {"sources": sources}}, sources[0]])
    assert len(nested) == 2 * RED + BLUE and nested.id(RED) == "0/1/0.png"


def test_weights_reach_through_a_join_from_its_first_source_alone(tmp_path: Path, sources: list[Any]) -> None:
    for name, count in (("red", RED), ("blue", BLUE)):
        for number in range(count):
            (tmp_path / name / f"{number}.png").rename(tmp_path / name / f"{name}{number}.png")
            picture(tmp_path / f"maps/{name}{number}.png", (16, 16), 1, "L")
            picture(tmp_path / f"photos/{name}{number}.png", (16, 16))
        (tmp_path / name / "metadata.jsonl").unlink()
    mixed = {"type": "concat", "config": {"sources": sources, "weights": [1, 3]}}
    maps = {"type": "maps", "config": {"pictures": "photos", "maps": "maps"}}
    joined = opened("join", tmp_path, sources=[mixed, maps])
    assert joined.mixture == ((RED, 1), (BLUE, 3)) and np.all(joined[RED].inputs["semantic"] == 1)
    weighted = {"type": "concat", "config": {"sources": [maps, maps], "weights": [1, 2]}}
    with pytest.raises(SpecError) as caught:
        opened("join", tmp_path, sources=[mixed, weighted], by="path")
    assert caught.value.code == "spec.join-weights"
