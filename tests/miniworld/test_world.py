"""The world: always the same pictures, and all that is said of a picture is true of it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from counting import calls_at_most
from ldmkit_miniworld.scene import Item, Scene
from ldmkit_miniworld.vocabulary import CLASSES, COLOURED, COLOURS, LAYOUT_CLASSES, OBJECTS, PALETTE, SEMANTIC, TIMES
from ldmkit_miniworld.world import World, WorldPicture, digest
from PIL import Image

from ldmkit.errors import InputError

GOLDEN = Path(__file__).parent / "world.png"
"""Pictures 0 to 7 of the split `golden`, side by side."""
GROUND = {"meadow": "grass", "lake": "grass", "mountain": "grass", "desert": "sand", "snow": "snow"}


@pytest.fixture(scope="module")
def pictures() -> list[WorldPicture]:
    world = World(64)
    return [world.sample("test", index) for index in range(150)]


def test_a_picture_is_the_same_in_another_process_and_out_of_order() -> None:
    program = (
        "from ldmkit_miniworld.world import World, digest; w = World(64); w.sample('other', 5)\n"
        "print(*(digest(w.sample('train', i)) for i in (7, 3, 123456)))"
    )
    path = ":".join(entry for entry in sys.path if entry)
    environment = {"PYTHONPATH": path, "PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    world = World(64)
    assert done.stdout.split() == [digest(world.sample("train", index)) for index in (7, 3, 123456)]


def test_the_look_is_the_one_that_models_were_trained_on() -> None:
    # Versions of the drawing library may round an edge otherwise, and nothing else: a new look needs a new model.
    golden = np.asarray(Image.open(GOLDEN).convert("RGB")).astype(int)
    drawn = np.concatenate([World(64).sample("golden", index).image for index in range(8)], axis=1)
    distance = np.abs(golden - drawn)
    assert np.quantile(distance, 0.95) <= 1 and distance.mean() < 0.3


def test_splits_and_indices_are_different_pictures() -> None:
    world = World(64)
    seen = {digest(world.sample(split, index)) for split in ("train", "validation", "test") for index in range(30)}
    images = {world.sample(split, index).image.tobytes() for split in ("train", "validation") for index in range(30)}
    assert len(seen) == 90 and len(images) == 60


def test_boxes_are_tight_around_what_the_map_shows(pictures: list[WorldPicture]) -> None:
    for picture in pictures:
        assert len(picture.layout) == len(picture.scene.items)
        for item, entry in zip(picture.scene.items, picture.layout, strict=True):
            assert entry["label"] == item.label
            x0, y0, x1, y1 = (round(v * 64) for v in entry["box"])
            mine = picture.semantic[y0:y1, x0:x1] == SEMANTIC.index(item.kind)
            assert mine[0].any() and mine[-1].any() and mine[:, 0].any() and mine[:, -1].any(), picture.id
        boxed = np.zeros((64, 64), dtype=bool)
        for entry in picture.layout:
            x0, y0, x1, y1 = (round(v * 64) for v in entry["box"])
            boxed[y0:y1, x0:x1] = True
        assert boxed[picture.semantic >= SEMANTIC.index("house")].all(), picture.id


def test_objects_are_large_enough_and_stay_visible(pictures: list[WorldPicture]) -> None:
    world = World(64)
    for picture in pictures:
        for item, entry in zip(picture.scene.items, picture.layout, strict=True):
            x0, y0, x1, y1 = entry["box"]
            assert min(x1 - x0, y1 - y0) * 64 >= (8 if item.kind in ("fence", "cloud") else 9), (picture.id, item)
            _, labels, _ = world.render(replace(picture.scene, items=(item,)))
            alone = np.count_nonzero(labels == SEMANTIC.index(item.kind))
            _, labels, _ = world.render(replace(picture.scene, items=_from(picture.scene, item)))
            # Objects of the same kind may cover each other: the map cannot tell them apart, so they are counted apart.
            covers = [other for other in _from(picture.scene, item)[1:] if other.kind == item.kind]
            if not covers:
                seen = np.count_nonzero(labels == SEMANTIC.index(item.kind))
                assert seen >= 0.7 * alone, (picture.id, item)


def _from(scene: Scene, item: Item) -> tuple[Item, ...]:
    return scene.items[scene.items.index(item) :]


def test_objects_are_where_they_belong(pictures: list[WorldPicture]) -> None:
    world = World(64)
    for picture in pictures:
        scene = picture.scene
        _, empty, nothing = world.render(replace(scene, items=()))
        assert nothing == []
        for item in scene.items:
            row, column = min(63, int(item.base * 64)), int((item.x + item.width / 2) * 64)
            below = SEMANTIC[empty[row, column]]
            if item.kind == "boat":
                assert scene.label == "lake" and below == "water", picture.id
            elif item.kind in ("sun", "moon", "cloud", "balloon"):
                assert SEMANTIC[empty[int(item.y * 64), column]] == "sky", picture.id
                assert item.kind != "sun" or scene.time in ("day", "dusk")
                assert item.kind != "moon" or scene.time == "night"
            else:
                assert below == GROUND[scene.label], (picture.id, item)


def test_the_map_shows_the_class(pictures: list[WorldPicture]) -> None:
    for picture in pictures:
        shown = {SEMANTIC[label] for label in np.unique(picture.semantic)}
        assert "sky" in shown and GROUND[picture.label] in shown
        assert ("water" in shown) == (picture.label == "lake")
        assert ("mountain" in shown) == (picture.label == "mountain")


def test_a_colour_is_seen_where_its_object_is(pictures: list[WorldPicture]) -> None:
    # The dominant hue inside the box, by the rule that people would use; whites are bright and nearly grey.
    hits, total = 0, 0
    for picture in pictures:
        for item, entry in zip(picture.scene.items, picture.layout, strict=True):
            if item.colour is None or item.kind == "person":
                continue
            x0, y0, x1, y1 = (round(v * 64) for v in entry["box"])
            mine = picture.semantic[y0:y1, x0:x1] == SEMANTIC.index(item.kind)
            share = _shares(picture.image[y0:y1, x0:x1][mine].astype(float))
            hits += max(share, key=lambda name: share[name]) == item.colour
            total += 1
    assert total > 100 and hits / total > 0.9


def _shares(pixels: np.ndarray) -> dict[str, int]:
    r, g, b = pixels.T
    least, greatest = pixels.min(axis=1), pixels.max(axis=1)
    vivid = greatest - least > 0.42 * greatest
    return {
        "red": int((vivid & (r > 1.8 * g)).sum()),
        "yellow": int((vivid & (r > 120) & (g > 0.62 * r) & (b < 0.5 * r)).sum()),
        "green": int((vivid & (g > 1.15 * r) & (g > 1.15 * b)).sum()),
        "blue": int((vivid & (b > 1.35 * g) & (b > 1.5 * r)).sum()),
        "white": int((~vivid & (least > 120) & (greatest > 165)).sum()),
    }


@pytest.mark.parametrize("index", range(6))
def test_a_scene_is_the_same_at_both_sizes(index: int) -> None:
    small, large = World(64).sample("sizes", index), World(128).sample("sizes", index)
    assert (small.scene, small.caption, small.label) == (large.scene, large.caption, large.label)
    assert large.image.shape == (128, 128, 3) and large.semantic.shape == (128, 128)
    # A box may differ by the pixel that its edge falls into, at either end.
    for a, b in zip(small.layout, large.layout, strict=True):
        assert a["label"] == b["label"]
        assert np.abs(np.subtract(a["box"], b["box"])).max() <= 1.5 / 64
    agree = small.semantic == large.semantic[1::2, 1::2]
    assert agree.mean() > 0.96


def test_both_sizes_are_smooth() -> None:
    # Both are averages of finer drawings, so they differ by 0.98 of 255 levels; if one were drawn in whole pixels,
    # it would be 1.7.
    distances = []
    for index in range(6):
        small, large = (World(size).sample("sizes", index).image for size in (64, 128))
        halved = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        distances.append(np.abs(halved - small).mean())
    assert np.mean(distances) < 1.3


def test_everything_occurs_as_often_as_it_should() -> None:
    world = World(64)
    scenes = [world.scene("counts", index) for index in range(2000)]
    classes, times = Counter(s.label for s in scenes), Counter(s.time for s in scenes)
    assert set(classes) == set(CLASSES) and set(times) == set(TIMES)
    # Binomial deviations of 2000 draws are below 0.01; 0.04 is four of them.
    assert all(abs(n / 2000 - 0.2) < 0.04 for n in classes.values())
    assert all(n / 2000 > 0.24 for n in times.values())
    items = [item for scene in scenes for item in scene.items]
    assert {item.label for item in items} == set(LAYOUT_CLASSES)
    kinds = Counter(item.kind for item in items)
    assert set(kinds) == set(OBJECTS) and min(kinds.values()) > 200
    coloured = Counter(item.colour for item in items if item.kind in COLOURED)
    assert all(abs(coloured[colour] / sum(coloured.values()) - 0.2) < 0.04 for colour in COLOURS)
    standing = Counter(sum(i.kind not in ("sun", "moon", "cloud") for i in scene.items) for scene in scenes)
    assert min(standing) >= 1 and max(standing) <= 4


def test_names_are_told_apart() -> None:
    assert len(set(SEMANTIC)) == len(SEMANTIC) == len(PALETTE) == len(set(PALETTE)) == 16
    assert len(set(LAYOUT_CLASSES)) == len(LAYOUT_CLASSES) == 30


@pytest.mark.parametrize("size", [0, -32, 48, 1024])
def test_sizes_that_cannot_be_drawn_are_refused(size: int) -> None:
    with pytest.raises(InputError, match="multiple of 32"):
        World(size)


def test_pictures_stream_fast_enough_to_train_from() -> None:
    """About 6,500 calls a picture, 400 pictures a second and more: nothing is done for each of its 4,096 pixels."""
    world = World(64)
    world.sample("speed", 0)
    with calls_at_most(60 * 15_000):
        for index in range(60):
            world.sample("speed", index)
