"""Grey, thresholds, sizes, shuffling, holes and maps of labels: numbers worked out by hand, and what must hold."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from ldmkit_extractors.arranged import Inpaint, Shuffle
from ldmkit_extractors.palettes import ADE20K
from ldmkit_extractors.segmentation import Segmentation
from ldmkit_extractors.tones import Grey, Scribble, Threshold, Tile
from PIL import Image

import ldmkit
from ldmkit.testing.extractor import drawing

Array = np.ndarray[Any, Any]
COLOURS = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [126, 127, 128]]], np.uint8)


def levels_of(extractor: ldmkit.Extractor, levels: Array) -> Array:
    return ldmkit.to_levels(extractor.extract(ldmkit.from_levels(levels)))


def test_grey_is_rec_601() -> None:
    found = levels_of(Grey(), COLOURS)
    assert (found == found[..., :1]).all()
    assert found[0, :, 0].tolist() == [0, 255, 76, 150, 29, 127]


def test_thresholds() -> None:
    """Of the darkest channel, on either side of the level, which is neither."""
    assert levels_of(Scribble(), COLOURS)[0, :, 0].tolist() == [255, 0, 255, 255, 255, 255]
    assert levels_of(Threshold(), COLOURS)[0, :, 0].tolist() == [0, 255, 0, 0, 0, 0]
    assert levels_of(Scribble(level=126), COLOURS)[0, :, 0].tolist() == [255, 0, 255, 255, 255, 0]
    assert levels_of(Threshold(level=125), COLOURS)[0, :, 0].tolist() == [0, 255, 0, 0, 0, 255]


def test_tiles() -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:2, :2] = 200
    picture[2:, 4:, 1] = 80
    assert np.array_equal(levels_of(Tile(), picture), picture)
    small = levels_of(Tile(size=(2, 3), filter="box"), picture)
    assert np.array_equal(small, picture[::2, ::2])  # averages of boxes of one colour each
    blocks = levels_of(Tile(shrink=2, filter="nearest"), picture)
    assert np.array_equal(blocks, picture)
    assert levels_of(Tile(size=(8, 12), filter="nearest"), picture).shape == (8, 12, 3)
    assert levels_of(Tile(shrink=1024), picture).std(axis=(0, 1)).max() == 0  # its mean colour
    ramp = np.repeat(np.arange(0, 256, 17, dtype=np.uint8)[None, :, None], 3, axis=2)
    doubled = levels_of(Tile(size=(1, 32), filter="bilinear"), ramp)[0, 1:-1, 0].astype(float)
    assert np.abs(np.diff(doubled) - 8.5).max() <= 0.5  # half a step, rounded


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (64, 48), (300, 280)])
def test_shuffles(size: tuple[int, int]) -> None:
    """Colours of the picture, smoothly, by a seed; the whole range of places is read."""
    picture = ldmkit.to_levels(drawing(size))
    found = levels_of(Shuffle(scale=32), picture)
    assert found.shape == picture.shape and found.min() >= picture.min() and found.max() <= picture.max()
    assert np.array_equal(found, levels_of(Shuffle(scale=32), picture))
    if size[0] < 64:
        return
    other = levels_of(Shuffle(scale=32, seed=1), picture)
    assert not np.array_equal(found, other) and not np.array_equal(found, picture)
    y, x = np.mgrid[: size[0], : size[1]]
    places = np.stack([x * 255 // (size[1] - 1), y * 255 // (size[0] - 1), 0 * x], axis=-1).astype(np.uint8)
    read = levels_of(Shuffle(scale=32), places)[..., :2].astype(int)
    assert read.min() <= 1 and read.max() >= 254
    assert np.abs(np.diff(read, axis=0)).max() < 60 and np.abs(np.diff(read, axis=1)).max() < 60  # no tears


def test_shuffling_is_the_same_on_every_machine() -> None:
    """A digest of the places: a stream of numpy's that is fixed, and a cubic whose places are rounded."""
    y, x = np.mgrid[:48, :64]
    places = np.stack([x * 4, y * 5, x + y], axis=-1).astype(np.uint8)
    found = hashlib.sha256(levels_of(Shuffle(scale=16, seed=5), places).tobytes()).hexdigest()
    assert found[:16] == SHUFFLED


SHUFFLED = "506844ccf0d404fb"


def test_holes_are_marked() -> None:
    picture, mask = ldmkit.to_levels(drawing((8, 12))), np.zeros((8, 12), np.uint8)
    mask[2:5, 3:9] = 255
    mask[6, :2] = 127, 128
    value = Inpaint.parse({"image": picture, "mask": mask}, "hint")
    hint = Inpaint().extract(value)
    hole = hint[0] == ldmkit.MASKED
    assert np.array_equal(hole.numpy(), mask > 127)
    assert torch.equal(hint[:, ~hole], ldmkit.from_levels(picture)[:, ~hole])
    assert set(((hint + 1) / 2)[:, hole].unique().tolist()) == {-1.0}
    with pytest.raises(ldmkit.InputError, match="mask-size"):
        Inpaint.parse({"image": picture, "mask": mask[1:]}, "hint")


def test_the_palette_of_ade20k() -> None:
    """150 colours: the digest is that of the palette of the published preprocessor."""
    assert len(ADE20K) == 150 and ADE20K[:3] == ((120, 120, 120), (180, 120, 120), (6, 230, 230))
    assert ADE20K[149] == (92, 0, 255) and ADE20K[4] == (4, 200, 3) and ADE20K[12] == (150, 5, 61)
    assert hashlib.sha256(bytes(v for colour in ADE20K for v in colour)).hexdigest()[:16] == "ce475c9151035eff"


def test_labels_become_colours() -> None:
    labels = np.array([[0, 1, 149], [2, 1, 1]])
    found = ldmkit.to_levels(Segmentation().extract(Segmentation.parse(labels, "map")))
    assert found.tolist() == [[list(ADE20K[i]) for i in row] for row in labels.tolist()]
    raised = ldmkit.to_levels(Segmentation(first=1, unlabelled=255).extract(torch.tensor([[0, 1, 150], [255, 2, 3]])))
    black = [0, 0, 0]
    assert raised.tolist() == [[black, list(ADE20K[0]), list(ADE20K[149])], [black, list(ADE20K[1]), list(ADE20K[2])]]


@pytest.mark.parametrize(("options", "label"), [({}, 150), ({"first": 1}, 151), ({}, 255), ({"unlabelled": 7}, 255)])
def test_a_label_without_a_colour_is_refused(options: dict[str, Any], label: int) -> None:
    with pytest.raises(ldmkit.InputError, match=rf"label-range.*label {label}"):
        Segmentation(**options).extract(torch.tensor([[0, label]]))


def test_a_palette_file_is_a_map(tmp_path: Any) -> None:
    image = Image.fromarray(np.array([[0, 4], [4, 1]], np.uint8), "P")
    image.putpalette([9, 9, 9] * 256)
    image.save(tmp_path / "map.png")
    found = ldmkit.to_levels(Segmentation().extract(Segmentation.parse(str(tmp_path / "map.png"), "map")))
    assert found[0, 1].tolist() == list(ADE20K[4])
