"""Layouts made up from a prompt: the language they are written in, and what a pipeline does with them."""

from __future__ import annotations

import math
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
from ldmkit_conditioners.layout import Layout
from ldmkit_conditioners.layout_language import SLOTS, LayoutLanguage
from ldmkit_conditioners.layout_proposed import LayoutProposed
from ldmkit_conditioners.regions import regions

import ldmkit
from ldmkit import InputError, RunError, SpecError

BINS, OBJECTS = 8, 3
PROPOSER = {"vocab_size": 12, "length": 5, "bins": BINS, "width": 16, "layers": 2, "heads": 2, "temperature": 1.0}
CONFIG = {"n_classes": 4, "dim": 8, "frequencies": 2, "max_objects": OBJECTS, "proposer": PROPOSER}
TEXT = {"vocab_size": 12, "dim": 8, "layers": 1, "heads": 2, "head_dim": 4, "max_length": 5, "start": 1, "end": 2}
SAID = [1, 5, 7, 2]


def language(seed: int = 0) -> LayoutLanguage:
    torch.manual_seed(seed)
    return LayoutLanguage(12, 4, BINS, 5, OBJECTS, width=16, layers=2, heads=2).requires_grad_(False)


def pipeline(**wiring: Any) -> ldmkit.Pipeline:
    """Prompts as ids, boxes beside them, pixels of 8x8."""
    return ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3, context_join="length"),
        process=ldmkit.get("process", "discrete")(),
        conditioners={
            "text": tiny_parts.part("conditioner", "ldm-text", TEXT),
            "layout": tiny_parts.part("conditioner", "layout-proposed", CONFIG, seed=8),
        },
        wiring=wiring,
        defaults={"size": (8, 8), "steps": 2},
    )


def test_losses_are_those_of_writing_the_layouts_number_by_number() -> None:
    """1e-4 nats: the same sums in float32, in another order."""
    model = language()
    prompts = torch.tensor([[1, 5, 2, 0, 0], [1, 3, 4, 6, 2]])
    layouts = [torch.tensor([[0, 1, 2, 3, 4], [3, 7, 0, 1, 2]]), torch.zeros(0, SLOTS, dtype=torch.int64)]
    labels = places = 0.0
    for prompt, layout in zip(prompts, layouts, strict=True):
        numbers = [*layout.flatten().tolist(), model.classes]
        for i, number in enumerate(numbers):
            state = model(prompt[None], torch.tensor([numbers[:i]], dtype=torch.int64))[0, -1]
            head = model.place_head if i % SLOTS else model.label_head
            nats = -float(head(state).log_softmax(0)[number])
            labels, places = (labels, places + nats) if i % SLOTS else (labels + nats, places)
    found = model.losses(prompts, layouts)
    assert float(found["labels"]) == pytest.approx(labels / 2, abs=1e-4)
    assert float(found["places"]) == pytest.approx(places / 2, abs=1e-4)


def test_losses_of_empty_layouts_alone() -> None:
    found = language().losses(torch.ones(2, 5, dtype=torch.int64), [torch.zeros(0, SLOTS, dtype=torch.int64)] * 2)
    assert float(found["places"]) == 0 and 0 < float(found["labels"]) < 20


def test_writing_depends_on_seed_and_prompt_alone() -> None:
    model, prompt = language(), torch.tensor([1, 5, 2, 0, 0])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    drawn = [model.write(prompt, seed, 1.0) for seed in range(24)]
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one, model.write(prompt, seed, 1.0)) for seed, one in enumerate(drawn))
    assert len({tuple(one.flatten().tolist()) for one in drawn}) > 12
    assert {len(one) for one in drawn} <= set(range(OBJECTS + 1)) and max(len(one) for one in drawn) == OBJECTS
    assert any(not torch.equal(one, model.write(prompt + 1, seed, 1.0)) for seed, one in enumerate(drawn))
    assert all(int(one[:, 0].max()) < 4 and int(one[:, 1:].max()) < BINS for one in drawn if len(one))


def test_what_is_written_is_learnt() -> None:
    """Two prompts, a layout each: after 150 steps each prompt gives its own, at every seed."""
    torch.manual_seed(0)
    part = LayoutProposed({**CONFIG, "proposer": {**PROPOSER, "temperature": 0.5}})
    box = {"label": 1, "box": [0.1, 0.2, 0.5, 0.9]}
    rows = [
        {"text": [1, 5, 2], "layout": Layout.read([box, {"label": 3, "box": [0.6, 0.0, 1.0, 0.4]}], "layout")},
        {"text": [1, 6, 2], "layout": Layout.read([{**box, "label": 2}], "layout")},
    ]
    assert part.proposer is not None
    optimiser = torch.optim.Adam(part.proposer.parameters(), 1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        sum(part.proposal_losses(rows, "layout").values()).backward()
        optimiser.step()
    for row in rows:
        for seed in range(5):
            made = part.propose({"text": row["text"]}, (8, 8), seed)
            assert made is not None
            assert [b.label for b in made.objects] == [b.label for b in row["layout"].objects]
            for one, other in zip(made.objects, row["layout"].objects, strict=True):
                # the centre and the size each lie within half a step
                assert one.rect.corners == pytest.approx(other.rect.corners, abs=1 / BINS)


def test_only_a_prompt_without_a_layout_or_a_map_is_answered() -> None:
    part = tiny_parts.part("conditioner", "layout-proposed", CONFIG)
    assert isinstance(part.propose({"text": SAID}, (8, 8), 0), Layout)
    assert part.propose({}, (8, 8), 0) is None
    assert part.propose({"text": SAID, "semantic": [[0]]}, (8, 8), 0) is None
    assert part.propose({"text": ""}, (8, 8), 0) is None
    with pytest.raises(InputError, match="vocabulary"):
        part.propose({"text": "a house"}, (8, 8), 0)


def test_a_class_is_read_as_its_word_where_no_text_is_given() -> None:
    reading = {**PROPOSER, "reads": ["text", "label"], "classes": ["lake", "desert"], "vocab_size": 192, "length": 32}
    part = tiny_parts.part("conditioner", "layout-proposed", {**CONFIG, "proposer": reading})
    part.load_assets(Path(str(files("ldmkit_miniworld"))) / "vocabulary_files")
    made = [[part.propose(given, (8, 8), seed) for seed in range(6)] for given in ({"label": 1}, {"label": "desert"})]
    assert made[0] == made[1] and made[0] != [part.propose({"label": 0}, (8, 8), seed) for seed in range(6)]
    both = [part.propose({"label": 0, "text": "desert"}, (8, 8), seed) for seed in range(6)]
    assert both == made[0], "a text goes before a class"
    assert part.propose({"label": 7}, (8, 8), 0) is None
    layout = Layout.read([{"label": 1, "box": [0.1, 0.2, 0.5, 0.9]}], "layout")
    one, other = ({"layout": layout, **given} for given in ({"text": "a lake"}, {"label": "desert"}))
    both = {"layout": layout, "text": "a lake", "label": "desert"}
    apart = [sum(map(float, part.proposal_losses([row], "layout").values())) for row in (one, other)]
    assert sum(map(float, part.proposal_losses([both], "layout").values())) == pytest.approx(sum(apart) / 2, rel=1e-5)


def test_naming_is_the_most_likely_of_all_names() -> None:
    """At a low temperature: the best of all 4 x 2 x 4 layouts, each scored by the losses."""
    model, prompt = language(), torch.tensor([1, 5, 2, 0, 0])
    places, among = [[1, 2, 3, 4], [5, 5, 1, 1], [0, 7, 2, 2]], [[0, 1, 2, 3], [1, 3], [0, 1, 2, 3]]
    scored = {}
    for names in product(*among):
        layout = torch.tensor([[name, *place] for name, place in zip(names, places, strict=True)])
        states = model(prompt[None], layout.flatten()[None])[0]
        label = model.label_head(states[:-1:SLOTS]).log_softmax(-1)
        place = model.place_head(states[:-1].view(3, SLOTS, -1)[:, 1:]).log_softmax(-1)
        scored[names] = float(label.gather(1, layout[:, :1]).sum() + place.gather(2, layout[:, 1:, None]).sum())
    assert tuple(model.name(prompt, places, among, seed=0, temperature=1e-4)) == max(scored, key=scored.__getitem__)
    drawn = [tuple(model.name(prompt, places, among, seed, temperature=1.0)) for seed in range(200)]
    assert drawn[0] == tuple(model.name(prompt, places, among, 0, 1.0)) and len(set(drawn)) > 8
    share = sum(names == max(scored, key=scored.__getitem__) for names in drawn) / 200
    total = sum(math.exp(value) for value in scored.values())
    # 200 draws: four standard deviations of a share are at most 0.15
    assert share == pytest.approx(math.exp(max(scored.values())) / total, abs=0.15)


def test_a_map_says_where_and_the_text_says_what() -> None:
    reading = {**PROPOSER, "map_names": ["sky", "house", "tree"]}
    names = ["red house", "blue house", "tree", "sun"]
    part = tiny_parts.part("conditioner", "layout-proposed", {**CONFIG, "names": names, "proposer": reading})
    labels = torch.zeros(16, 16, dtype=torch.long)
    labels[8:14, 0:4], labels[6:12, 8:12], labels[0, 0] = 1, 2, 1
    made = part.propose({"text": SAID, "semantic": labels}, (8, 8), 0)
    assert made is not None and len(made.objects) == 2, "one pixel is nothing"
    tree, house = made.objects
    assert tree.label == "tree" and tree.box == (0.5, 0.375, 0.75, 0.75), "what stands higher is farther, and first"
    assert house.label in ("red house", "blue house") and house.box == (0.0, 0.5, 0.25, 0.875)
    assert part.propose({"semantic": labels}, (8, 8), 0) is None, "nothing says what they are"
    assert part.propose({"text": SAID, "semantic": torch.zeros(16, 16, dtype=torch.long)}, (8, 8), 0) is None


def test_too_many_things_of_a_map_leave_the_farthest_out() -> None:
    reading = {**PROPOSER, "map_names": ["sky", "tree"]}
    names = ["house", "boat", "car", "tree"]
    part = tiny_parts.part("conditioner", "layout-proposed", {**CONFIG, "names": names, "proposer": reading})
    labels = torch.zeros(16, 16, dtype=torch.long)
    labels[::4, 2:4] = 1
    made = part.propose({"text": SAID, "semantic": labels}, (8, 8), 0)
    assert made is not None and [box.box[1] for box in made.objects] == [0.25, 0.5, 0.75]


def test_the_class_of_number_zero_is_read_beside_a_map() -> None:
    reading = {**PROPOSER, "reads": ["label"], "classes": ["lake"], "vocab_size": 192, "length": 32}
    reading["map_names"] = ["sky", "tree"]
    names = ["house", "boat", "car", "tree"]
    part = tiny_parts.part("conditioner", "layout-proposed", {**CONFIG, "names": names, "proposer": reading})
    part.load_assets(Path(str(files("ldmkit_miniworld"))) / "vocabulary_files")
    labels = torch.zeros(16, 16, dtype=torch.long)
    labels[4:8, 2:6] = 1
    made = part.propose({"label": 0, "semantic": labels}, (8, 8), 0)
    assert made is not None and [box.label for box in made.objects] == ["tree"]


def test_a_winding_region_is_one_and_specks_are_none() -> None:
    winding = torch.zeros(65, 65, dtype=torch.long)
    winding[::2] = 1
    winding[1::4, 0], winding[3::4, -1] = 1, 1
    assert regions(winding, [1]) == [(1, (0.0, 0.0, 1.0, 1.0))]
    specks = torch.zeros(64, 64, dtype=torch.long)
    specks[::2, ::2] = 1
    assert regions(specks, [1]) == []


def test_weights_that_are_not_finite_are_named() -> None:
    model = language()
    model.norm.weight.fill_(float("nan"))
    prompt = torch.tensor([1, 5, 2, 0, 0])
    with pytest.raises(RunError, match="proposing a layout"):
        model.write(prompt, 0, 1.0)
    with pytest.raises(RunError, match="proposing a layout"):
        model.name(prompt, [[1, 2, 3, 4]], [[0, 1]], 0, 1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_proposer_in_16_bits_writes_and_names(dtype: torch.dtype) -> None:
    model, prompt = language().to(dtype), torch.tensor([1, 5, 2, 0, 0])
    assert torch.equal(model.write(prompt, 3, 1.0), model.write(prompt, 3, 1.0))
    assert model.name(prompt, [[1, 2, 3, 4]], [[2]], 0, 1.0) == [2]


@pytest.mark.parametrize(("wrong", "said"), [({"pad": 12}, "token id 12"), ({"heads": 3}, "not a multiple of 3 heads")])
def test_a_proposer_that_cannot_run_is_not_built(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        LayoutProposed({**CONFIG, "proposer": {**PROPOSER, **wrong}})


def test_regions_touch_by_corners_too() -> None:
    labels = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1], [2, 2, 0, 1]])
    found = regions(labels, [1, 2])
    assert (1, (0.0, 0.0, 0.5, 0.5)) in found and (1, (0.75, 0.25, 1.0, 1.0)) in found
    assert (2, (0.0, 0.75, 0.5, 1.0)) in found and len(found) == 3


def test_a_run_draws_with_what_is_proposed_and_says_so(tmp_path: Path) -> None:
    pipe = pipeline()
    out = pipe({"text": SAID}, seeds=[3, 4])
    made = [recipe["proposed"]["layout"] for recipe in out.recipes]
    assert made[0] != made[1], "each picture has its own"
    assert all("layout" not in recipe["inputs"] for recipe in out.recipes)
    given = pipe([{"text": SAID, "layout": layout} for layout in made], seeds=[3, 4])
    assert torch.equal(given.latents, out.latents)
    assert all("proposed" not in recipe for recipe in given.recipes)
    alone = pipe({"text": SAID}, seeds=[3, 4], propose=False)
    assert not torch.allclose(alone.latents, out.latents) and "proposed" not in alone.recipes[0]
    by_itself = pipe({"text": SAID}, seeds=[4])
    assert by_itself.recipes[0]["proposed"]["layout"] == made[1], "alone as in a batch"
    torch.testing.assert_close(by_itself.latents[0], out.latents[1], atol=1e-4, rtol=0)


def test_a_replay_uses_what_was_proposed_then() -> None:
    from ldmkit.replaying import replay

    pipe = pipeline()
    recipe = pipe({"text": SAID}, seeds=[3]).recipes[0]
    first = replay(pipe, recipe)
    with torch.no_grad():
        for parameter in pipe.conditioners["layout"].proposer.parameters():  # type: ignore[union-attr]
            parameter.zero_()
    assert torch.equal(replay(pipe, recipe).latents, first.latents)


def test_nothing_is_proposed_for_a_picture_to_start_from() -> None:
    start = {"image": torch.zeros(3, 8, 8), "strength": 0.5}
    assert "proposed" not in pipeline()({"text": SAID}, start=start).recipes[0]


def test_whoever_reads_an_input_may_propose_it() -> None:
    """The plane comes first in the spec, and proposes nothing."""
    pipe = ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3, in_channels=11, context_join="length"),
        process=ldmkit.get("process", "discrete")(),
        conditioners={
            "text": tiny_parts.part("conditioner", "ldm-text", TEXT),
            "painted": tiny_parts.part("conditioner", "layout-plane", {"n_classes": 4, "dim": 8}),
            "layout": tiny_parts.part("conditioner", "layout-proposed", CONFIG, seed=8),
        },
        wiring={"painted": {"input": "layout"}},
        defaults={"size": (8, 8), "steps": 2},
    )
    made = pipe({"text": SAID}, seeds=[3]).recipes[0]["proposed"]
    assert made == pipeline()({"text": SAID}, seeds=[3]).recipes[0]["proposed"]


def test_propose_is_a_switch() -> None:
    with pytest.raises(InputError, match=r"propose.*True or False"):
        pipeline()({"text": SAID}, propose="no")
