"""The oracle: its targets and losses by hand, its files, its training that goes on, and how well it reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ldmkit_miniworld.oracle import CONFIG, FOLDER, WEIGHTS, Oracle, as_tensor, bundled, downscaled
from ldmkit_miniworld.oracle_accuracy import figures
from ldmkit_miniworld.oracle_losses import MOST, Targets, assigned, box_overlaps, losses, targets_of, total
from ldmkit_miniworld.oracle_network import OracleConfig, OracleNetwork, Signs, places
from ldmkit_miniworld.oracle_training import TrainingRun, train
from ldmkit_miniworld.oracle_views import spoiled
from ldmkit_miniworld.vocabulary import CLASSES, COLOURS, LAYOUT_CLASSES, OBJECTS, SEMANTIC, TIMES
from ldmkit_miniworld.world import World, WorldPicture

from ldmkit.errors import InputError, SourceError


@pytest.fixture(scope="module")
def pictures() -> list[WorldPicture]:
    return [World(64).sample("test", i) for i in range(32)]


def only(*items: tuple[str, tuple[float, float, float, float]]) -> Targets:
    """Targets of one picture that holds these kinds in boxes of pixels."""
    boxes, kinds = torch.zeros(1, MOST, 4), torch.full((1, MOST), -1)
    for i, (kind, box) in enumerate(items):
        boxes[0, i], kinds[0, i] = torch.tensor(box), OBJECTS.index(kind)
    empty = torch.zeros(1, dtype=torch.long)
    maps = torch.zeros(1, 64, 64, dtype=torch.uint8)
    return Targets(maps, boxes, kinds, torch.full((1, MOST), -1), empty, empty, torch.zeros(1, len(LAYOUT_CLASSES)))


def test_places_are_centres_of_cells() -> None:
    assert places()[:2].tolist() == [[1, 1], [3, 1]] and places()[32].tolist() == [1, 3]


def test_the_middle_of_a_box_is_where_it_is_seen() -> None:
    at = assigned(only(("house", (10, 10, 30, 20))), places())
    # 0.4 of the half sides around (20, 15): 16..24 by 13..17
    assert sorted(places()[at.place].tolist()) == sorted([[x, y] for y in (13, 15, 17) for x in (17, 19, 21, 23)])
    assert set(at.kind.tolist()) == {OBJECTS.index("house")} and set(at.item.tolist()) == {0}


def test_the_smallest_box_is_seen_somewhere() -> None:
    assert len(assigned(only(("moon", (8.0, 8.0, 8.5, 8.5))), places()).place) >= 1


def test_neighbours_of_one_kind_share_the_places_between_them() -> None:
    at = assigned(only(("tree", (10, 10, 30, 30)), ("tree", (14, 10, 34, 30))), places())
    seen = {
        (tuple(places()[place].tolist()), item) for place, item in zip(at.place.tolist(), at.item.tolist(), strict=True)
    }
    # centres at x = 20 and 24
    assert ((19, 21), 0) in seen and ((19, 21), 1) not in seen
    assert ((25, 21), 1) in seen and ((25, 21), 0) not in seen
    other = assigned(only(("tree", (10, 10, 30, 30)), ("car", (14, 10, 34, 30))), places())
    assert len(other.place) > len(at.place), "other kinds do not compete"


def test_overlaps_of_boxes_by_hand() -> None:
    plain, wide = box_overlaps(
        torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1]]), torch.tensor([[1.0, 0, 3, 2], [2, 0, 3, 1]])
    )
    assert torch.allclose(plain, torch.tensor([2 / 6, 0]))
    # the second pair: a hull of 3 with 1 of it empty
    assert torch.allclose(wide, torch.tensor([2 / 6, -1 / 3]))


def test_the_truth_has_no_loss(pictures: list[WorldPicture]) -> None:
    targets, far = targets_of(pictures[:4]), 40.0
    at = assigned(targets, places())
    boxes = torch.zeros(4, 1024, len(OBJECTS), 4)
    boxes[at.row, at.place, at.kind] = targets.boxes[at.row, at.item]
    kinds = torch.full((4, 1024, len(OBJECTS)), -far)
    kinds[at.row, at.place, at.kind] = far
    hues = torch.zeros(4, 1024, len(OBJECTS), len(COLOURS))
    painted = targets.colours[at.row, at.item] >= 0
    hues[at.row[painted], at.place[painted], at.kind[painted], targets.colours[at.row, at.item][painted]] = far

    def sure(labels: torch.Tensor, count: int) -> torch.Tensor:
        return torch.nn.functional.one_hot(labels.long(), count).float() * far

    maps = sure(targets.semantic, len(SEMANTIC)).permute(0, 3, 1, 2)
    scene = sure(targets.label, len(CLASSES)), sure(targets.time, len(TIMES))
    truth = Signs(maps, kinds, boxes, hues, *scene, (targets.present * 2 - 1) * far, torch.zeros(4, 64))
    # objects without a colour have none to predict: their part is left out
    assert all(float(value) < 1e-4 for value in losses(truth, targets, places()).values())


def test_every_head_gets_a_gradient(pictures: list[WorldPicture]) -> None:
    network = OracleNetwork(OracleConfig(widths=(4, 4, 8, 8)))
    total(
        losses(network(as_tensor([p.image for p in pictures[:4]])), targets_of(pictures[:4]), network.centres)
    ).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


def test_spoiled_views_are_pictures_that_seeds_decide(pictures: list[WorldPicture]) -> None:
    images = as_tensor([p.image for p in pictures])
    first, again, other = (spoiled(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.min()) >= 0 and float(first.max()) <= 1
    moved = (first - images).abs().mean((1, 2, 3))
    assert 0 < float(moved.max()) < 0.1
    assert 0.1 < float((moved < 1e-6).float().mean()) < 0.6, "some stay as they are"


def test_training_goes_on_where_it_stopped(tmp_path: Path, pictures: list[WorldPicture]) -> None:
    images, targets = np.stack([p.image for p in pictures]), targets_of(pictures)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole = TrainingRun(tmp_path / "a", 4, 0)
    train(whole, images, targets, 4, batch=4)
    half = TrainingRun(tmp_path / "b", 4, 0)
    train(half, images, targets, 2, batch=4)
    rest = TrainingRun(tmp_path / "b", 4, 0)
    assert rest.step == 2
    train(rest, images, targets, 4, batch=4)
    for name, tensor in whole.average.state_dict().items():
        assert torch.equal(tensor, rest.average.state_dict()[name]), name


def test_files_hold_the_oracle(tmp_path: Path, pictures: list[WorldPicture]) -> None:
    oracle = bundled()
    oracle.save(tmp_path)
    images = as_tensor([p.image for p in pictures[:4]])
    first, again = oracle.read(images), Oracle.load(tmp_path).read(images)
    assert first.objects == again.objects and np.array_equal(first.features, again.features)
    assert Oracle.load(tmp_path).held_out == oracle.held_out
    assert sum((FOLDER / name).stat().st_size for name in (WEIGHTS, CONFIG)) <= 2 * 2**20


def test_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not-found"):
        Oracle.load(tmp_path)
    bundled().save(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(SourceError, match=WEIGHTS):
        Oracle.load(tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps({"held_out": {}}))
    with pytest.raises(SourceError, match=CONFIG):
        Oracle.load(tmp_path)


def test_pictures_that_it_cannot_read_are_refused() -> None:
    for shape in ((1, 3, 64, 96), (1, 3, 96, 96), (1, 1, 64, 64), (3, 64, 64), (0, 3, 64, 64)):
        with pytest.raises(InputError, match="oracle-size"):
            downscaled(torch.zeros(shape))
    with pytest.raises(InputError, match="oracle-range"):
        downscaled(torch.full((1, 3, 64, 64), -1.0))


def test_larger_pictures_are_averaged() -> None:
    image = torch.zeros(1, 3, 128, 128)
    image[..., ::2, ::2] = 1
    assert torch.allclose(downscaled(image), torch.full((1, 3, 64, 64), 0.25))


def test_what_it_reads_does_not_depend_on_the_batch(pictures: list[WorldPicture]) -> None:
    images = as_tensor([p.image for p in pictures])
    many, one = bundled().read(images), bundled().read(images[7:8])
    assert np.allclose(many.features[7], one.features[0], atol=1e-3)
    assert [thing.label for thing in many.objects[7]] == [thing.label for thing in one.objects[0]]
    told: list[int] = []
    bundled().read(images[:3], told.append)
    assert told == [3]


def test_it_reads_renders_as_well_as_it_says(pictures: list[WorldPicture]) -> None:
    said = bundled().held_out
    seen = figures(bundled().read(as_tensor([p.image for p in pictures])), pictures)
    assert said["pictures"] >= 400 and set(said) == set(seen)
    # 32 pictures hold some 130 objects: a share moves by 0.02 or so
    for name in ("semantic_miou", "label_accuracy", "time_accuracy", "layout_recall50", "colour_accuracy"):
        assert seen[name] > said[name] - 0.05, name


def test_spoiled_pictures_are_read_nearly_as_well(pictures: list[WorldPicture]) -> None:
    views = spoiled(as_tensor([p.image for p in pictures]), torch.Generator().manual_seed(3))
    seen = figures(bundled().read(views), pictures)
    assert seen["label_accuracy"] > 0.95 and seen["layout_recall50"] > 0.9 and seen["semantic_miou"] > 0.75
