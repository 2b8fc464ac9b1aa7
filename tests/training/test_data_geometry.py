"""Pictures, boxes and maps are cropped, resized and mirrored together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data_sources import Squares, section
from ldmkit_training.data.geometry import Window, fit_boxes, fit_map, fit_picture, fitted, random_draw, window
from PIL import Image

from ldmkit.contracts.data import Sample
from ldmkit.errors import InputError, SpecError

BOX = {"label": "a", "box": [0.25, 0.25, 0.75, 0.75]}


def boxes(seen: Window, picture: tuple[int, int], *given: list[float]) -> list[list[float]]:
    return [b["box"] for b in fit_boxes([{"label": 1, "box": b} for b in given], picture, seen, "here")]


@pytest.mark.parametrize("fit", ["resize", "crop", "random-crop"])
@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_a_square_stays_where_its_box_and_map_say(fit: str, mirror: float) -> None:
    """Twenty squares in 96 x 128 pictures: what is bright, what is labelled and what is boxed are one rectangle,
    to the pixel that a resize can move an edge by."""
    rule, data, met = section(size=[80, 40], fit=fit, mirror=mirror), Squares(20, (96, 128)), 0
    for index in range(20):
        image, inputs = fitted(data[index], data.geometry, rule, random_draw("t", index))
        assert image.shape == (80, 40, 3) and image.dtype == np.uint8
        bright = image[..., 0] > 178
        labelled = inputs["semantic"] == 3
        edge = sum(int(labelled.any(axis).sum()) for axis in (0, 1))
        assert (bright ^ labelled).sum() <= edge, "one row and one column of difference at most"
        for box in inputs["layout"]:
            x0, y0, x1, y1 = box["box"]
            rows, columns = np.nonzero(labelled)
            found = [columns.min() / 40, rows.min() / 80, (columns.max() + 1) / 40, (rows.max() + 1) / 80]
            np.testing.assert_allclose(found, [x0, y0, x1, y1], atol=0.03)
            met += 1
    assert met >= 10


def test_windows_by_hand() -> None:
    wide = (100, 300)
    assert window(wide, section(fit="resize"), None) == Window(0, 0, 300, 100)
    assert window(wide, section(fit="crop"), None) == Window(100, 0, 200, 100)
    assert window((300, 100), section(fit="crop", size=[16, 32]), None) == Window(0, 125, 100, 175)
    assert window(wide, section(fit="crop", mirror=1.0), random_draw(0)) == Window(100, 0, 200, 100, True)
    assert window(wide, section(fit="random-crop", mirror=1.0), None) == Window(100, 0, 200, 100, False)


def test_random_windows_cover_the_range_and_stay_inside() -> None:
    rule = section(fit="random-crop", crop_scale=[0.5, 1.0])
    seen = [window((60, 100), rule, random_draw("w", i)) for i in range(300)]
    sides = [w.right - w.left for w in seen]
    assert all(w.left >= 0 and w.top >= 0 and w.right <= 100 and w.bottom <= 60 for w in seen)
    assert all(w.right - w.left == w.bottom - w.top for w in seen)
    assert min(sides) < 33 and max(sides) > 57 and min(w.left for w in seen) < 3 and max(w.right for w in seen) > 97


def test_boxes_by_hand() -> None:
    half = Window(0, 0, 50, 100)
    assert boxes(half, (100, 100), [0.25, 0.25, 0.5, 0.5]) == [[0.5, 0.25, 1.0, 0.5]]
    assert boxes(half._replace(mirrored=True), (100, 100), [0.25, 0.25, 0.5, 0.5]) == [[0.0, 0.25, 0.5, 0.5]]
    assert boxes(half, (100, 100), [0.6, 0.0, 0.9, 1.0]) == []
    # exactly a third is left, and a little less
    assert boxes(half, (100, 100), [0.375, 0.0, 0.75, 1.0]) == [[0.75, 0.0, 1.0, 1.0]]
    assert boxes(half, (100, 100), [0.38, 0.0, 0.75, 1.0]) == []
    whole = Window(0, 0, 100, 100)
    assert boxes(whole, (100, 100), [0.1, 0.2, 0.3, 0.7]) == [[0.1, 0.2, 0.3, 0.7]]


def test_what_else_a_box_says_is_kept() -> None:
    [kept] = fit_boxes([{**BOX, "group_of": True}], (10, 10), Window(0, 0, 5, 10), "here")
    assert kept == {"label": "a", "box": [0.5, 0.25, 1.0, 0.75], "group_of": True}


@pytest.mark.parametrize(
    "value",
    [
        "a box",
        [3],
        [{"label": 1}],
        [{"label": 1, "box": [0, 0, 1]}],
        [{"label": 1, "box": [0.5, 0, 0.5, 1]}],
        [{**BOX, "format": "xywh"}],
    ],
)
def test_boxes_that_cannot_be_cropped_are_errors(value: Any) -> None:
    with pytest.raises(InputError) as caught:
        fit_boxes(value, (10, 10), Window(0, 0, 5, 10), "7.png: layout")
    assert caught.value.code == "input.bad-sample" and "7.png: layout" in str(caught.value)


def test_maps_keep_labels_and_halving_takes_centres() -> None:
    labels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    whole = Window(0, 0, 4, 4)
    assert fit_map(labels, (4, 4), whole, (4, 4), "m").tolist() == labels.tolist()
    assert fit_map(labels, (4, 4), whole, (2, 2), "m").tolist() == [[5, 7], [13, 15]]
    assert fit_map(labels, (4, 4), whole._replace(mirrored=True), (4, 4), "m").tolist() == labels[:, ::-1].tolist()
    big = fit_map(labels, (4, 4), Window(1, 1, 3, 3), (4, 4), "m")
    assert big.tolist() == [[5, 5, 6, 6], [5, 5, 6, 6], [9, 9, 10, 10], [9, 9, 10, 10]]


def test_pictures_are_resized_with_antialiasing() -> None:
    """Stripes of one pixel become grey, not black or white as without antialiasing."""
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    small = fit_picture(stripes, Window(0, 0, 64, 64), (16, 16))
    assert abs(small.astype(int) - 127).max() < 12
    same = fit_picture(stripes, Window(0, 0, 64, 64), (64, 64))
    assert np.array_equal(same, stripes)


def test_a_crop_is_resized_like_the_cut_picture() -> None:
    image = Squares()[3].image
    cut = Image.fromarray(image[2:18, 5:25]).resize((10, 10), Image.Resampling.BICUBIC)
    assert np.array_equal(fit_picture(image, Window(5, 2, 25, 18), (10, 10)), np.asarray(cut))


def test_exact_refuses_other_sizes() -> None:
    data = Squares(1, (16, 32))
    with pytest.raises(InputError, match=r"16 rows and 32 columns") as caught:
        fitted(data[0], data.geometry, section(fit="exact"), None)
    assert caught.value.where == "0.png"
    image, _ = fitted(data[0], data.geometry, section(fit="exact", size=[16, 32]), None)
    assert np.array_equal(image, data[0].image)


def test_maps_of_another_size_are_errors() -> None:
    sample = Sample("7.png", np.zeros((8, 8, 3), np.uint8), {"semantic": np.zeros((4, 4), np.uint8)})
    with pytest.raises(InputError, match=r"7.png: semantic: a map of shape \(4, 4\)"):
        fitted(sample, {"semantic": "map"}, section(), None)


def test_draws_are_a_function_of_the_key() -> None:
    assert random_draw(1, "view", 0, 5) == random_draw(1, "view", 0, 5) != random_draw(1, "view", 1, 5)
    values = np.array([random_draw(0, i) for i in range(2000)])
    assert values.min() >= 0 and values.max() < 1
    # a mean of 2000 uniform numbers has a standard deviation of 0.0065
    np.testing.assert_allclose(values.mean(0), 0.5, atol=0.03)


def test_sections_refuse_what_contradicts_itself() -> None:
    with pytest.raises(SpecError, match="the smaller share stands first"):
        section(crop_scale=[1.0, 0.5])
    with pytest.raises(SpecError, match="views"):
        section(mirror=0.5, cache={"folder": "c"})
    with pytest.raises(SpecError, match="did you mean 'mirror'"):
        section(miror=0.5)
