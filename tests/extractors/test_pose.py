"""Skeletons against OpenCV drawing the published strokes, pixel for pixel; layouts; files as they are found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ldmkit_extractors.keypoints import People
from ldmkit_extractors.pose import Pose
from PIL import Image

import ldmkit

Array = np.ndarray[Any, Any]
SIDE = 256
LIMBS = [
    *([2, 3], [2, 6], [3, 4], [4, 5], [6, 7], [7, 8], [2, 9], [9, 10], [10, 11], [2, 12], [12, 13], [13, 14], [2, 1]),
    *([1, 15], [15, 17], [1, 16], [16, 18]),
]
"""As published: points are counted from 1."""
COLOURS = [
    *([255, 0, 0], [255, 85, 0], [255, 170, 0], [255, 255, 0], [170, 255, 0], [85, 255, 0], [0, 255, 0], [0, 255, 85]),
    *([0, 255, 170], [0, 255, 255], [0, 170, 255], [0, 85, 255], [0, 0, 255], [85, 0, 255], [170, 0, 255]),
    *([255, 0, 255], [255, 0, 170], [255, 0, 85]),
]
FINGERS = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6), (6, 7), (7, 8), (0, 9), (9, 10), (10, 11), (11, 12)]
FINGERS += [(0, 13), (13, 14), (14, 15), (15, 16), (0, 17), (17, 18), (18, 19), (19, 20)]


def numbers(points: Array, known: Array | None = None) -> list[float]:
    sure = np.ones(len(points)) if known is None else known
    return [float(n) for (x, y), c in zip(points, sure, strict=True) for n in (x, y, c)]


def drawn(file: Any, **options: Any) -> Array:
    return ldmkit.to_levels(Pose(**options).extract(Pose.parse(file, "pose")))


def by_opencv(canvas: Array, points: Array, known: Array) -> Array:
    """A body as the published preprocessor draws it."""
    cv2 = pytest.importorskip("cv2")
    for (one, other), colour in zip(LIMBS, COLOURS, strict=False):
        if not known[one - 1] or not known[other - 1]:
            continue
        (x0, y0), (x1, y1) = points[one - 1], points[other - 1]
        angle = math.degrees(math.atan2(y0 - y1, x0 - x1))
        half = (int(math.hypot(x0 - x1, y0 - y1) / 2), 4)
        corners = cv2.ellipse2Poly((int((x0 + x1) / 2), int((y0 + y1) / 2)), half, int(angle), 0, 360, 1)
        cv2.fillConvexPoly(canvas, corners, [int(level * 0.6) for level in colour])
    for (x, y), sure, colour in zip(points, known, COLOURS, strict=True):
        if sure:
            cv2.circle(canvas, (int(x), int(y)), 4, colour, thickness=-1)
    return canvas


@pytest.mark.parametrize("seed", range(12))
def test_bodies_are_drawn_as_published(seed: int) -> None:
    """Several people with points missing; nobody reaches over the border, where OpenCV's lines are clipped first."""
    rng = np.random.default_rng(seed)
    people, canvas = [], np.zeros((SIDE, SIDE, 3), np.uint8)
    for _ in range(1 + seed % 3):
        points = rng.uniform(8, SIDE - 8, (18, 2))
        known = rng.random(18) > 0.15
        canvas = by_opencv(canvas, points, known)
        people.append({"pose_keypoints_2d": numbers(points, known.astype(float))})
    found = drawn({"people": people, "canvas_width": SIDE, "canvas_height": SIDE})
    assert np.array_equal(found, canvas)


@pytest.mark.parametrize("seed", range(4))
def test_hands_and_faces_are_drawn_as_published(seed: int) -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    hand, face = rng.integers(8, SIDE - 8, (21, 2)), rng.integers(8, SIDE - 8, (70 if seed % 2 else 68, 2))
    known = (rng.random(21) > 0.2).astype(float)
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    for number, (one, other) in enumerate(FINGERS):
        hue = number / 20 * 6
        fall, sector = 1 - (hue - int(hue)), int(hue)  # in the order in which matplotlib's hsv_to_rgb rounds
        rise = 1 - (1 - (hue - int(hue)))
        rgb = [(1, rise, 0), (fall, 1, 0), (0, 1, rise), (0, fall, 1), (rise, 0, 1), (1, 0, fall)][sector]
        if known[one] and known[other]:
            ends = (tuple(map(int, hand[one])), tuple(map(int, hand[other])))
            cv2.line(canvas, *ends, [level * 255 for level in rgb], thickness=2)
    for (x, y), sure in zip(hand, known, strict=True):
        if sure:
            cv2.circle(canvas, (int(x), int(y)), 4, (0, 0, 255), thickness=-1)
    for x, y in face:
        cv2.circle(canvas, (int(x), int(y)), 3, (255, 255, 255), thickness=-1)
    name = "hand_left_keypoints_2d" if seed % 2 else "hand_right_keypoints_2d"
    person = {name: numbers(hand, known), "face_keypoints_2d": numbers(face), "pose_keypoints_2d": []}
    found = drawn({"people": [person], "canvas_width": SIDE, "canvas_height": SIDE})
    assert np.array_equal(found, canvas)
    assert not drawn({"people": [person]}, size=(SIDE, SIDE), hands=False, face=False).any()


def test_numbers_that_opencv_gave() -> None:
    """One limb and its joints, where OpenCV is not installed: pixels of each colour, and two of the places."""
    points = np.zeros((18, 2))
    points[1:3] = [(20, 20), (41, 33)]
    known = np.zeros(18)
    known[1:3] = 1
    found = drawn({"people": [{"pose_keypoints_2d": numbers(points, known)}]}, size=(64, 64))
    colours, counts = np.unique(found.reshape(-1, 3), axis=0, return_counts=True)
    assert dict(zip(map(tuple, colours.tolist()), counts.tolist(), strict=True)) == COUNTS
    assert found[20, 20].tolist() == [255, 85, 0] and found[26, 30].tolist() == [153, 0, 0]


COUNTS = {(0, 0, 0): 3847, (153, 0, 0): 151, (255, 85, 0): 49, (255, 170, 0): 49}


def test_layouts_of_bodies() -> None:
    """BODY_25 has a mid-hip as its ninth point, and feet; COCO has eyes first, and no neck."""
    rng = np.random.default_rng(0)
    points = rng.integers(10, 90, (18, 2)).astype(float)
    points[1] = (points[2] + points[5]) / 2  # the neck
    wanted = drawn({"people": [{"pose_keypoints_2d": numbers(points)}]}, size=(100, 100))
    body25 = np.concatenate([points[:8], [[50, 50]], points[8:], rng.integers(0, 99, (6, 2))])
    coco = points[[0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]]
    for other in (body25, coco):
        assert np.array_equal(drawn({"people": [{"pose_keypoints_2d": numbers(other)}]}, size=(100, 100)), wanted)


def test_fractions_and_other_sizes() -> None:
    rng = np.random.default_rng(1)
    points = rng.integers(8, 120, (18, 2)).astype(float)
    wanted = drawn({"people": [{"pose_keypoints_2d": numbers(points)}], "canvas_width": 128, "canvas_height": 128})
    fractions = {"people": [{"pose_keypoints_2d": numbers(points / 128)}]}
    assert np.array_equal(drawn(fractions, size=(128, 128)), wanted)
    half = {"people": [{"pose_keypoints_2d": numbers(points / 2)}], "canvas_width": 64, "canvas_height": 64}
    assert np.array_equal(drawn(half, size=(128, 128)), wanted)
    assert drawn(half).shape == (64, 64, 3)


def test_files_as_they_are_found(tmp_path: Path) -> None:
    """OpenPose's own keys, lists of one frame, nulls, a path; a confidence below the threshold is no point."""
    points = np.random.default_rng(2).integers(8, 56, (18, 2))
    person = {
        "person_id": [-1], "pose_keypoints_2d": numbers(points), "face_keypoints_2d": None,
        "hand_left_keypoints_2d": [], "pose_keypoints_3d": [], "face_keypoints_3d": [],
    }  # fmt: skip
    file = {"version": 1.3, "people": [person], "canvas_width": 64, "canvas_height": 64, "animals": []}
    (tmp_path / "pose.json").write_text(json.dumps(file), encoding="utf-8")
    wanted = drawn(file)
    assert wanted.any()
    for given in ([file], str(tmp_path / "pose.json"), tmp_path / "pose.json", Pose.from_text(json.dumps(file))):
        assert np.array_equal(drawn(given), wanted)
    unsure = {**file, "people": [{"pose_keypoints_2d": numbers(points, np.full(18, 0.3))}]}
    assert np.array_equal(drawn(unsure), wanted) and not drawn(unsure, confidence=0.5).any()
    assert not drawn({"people": [], "canvas_width": 8, "canvas_height": 9}).any()


REFUSED: dict[str, tuple[Any, str]] = {
    "no size": ({"people": []}, "size="),
    "half a canvas": ({"people": [], "canvas_width": 64}, "one side"),
    "19 points": ({"people": [{"pose_keypoints_2d": [1.0] * 57}]}, "18 or 25 or 17"),
    "a number short": ({"people": [{"pose_keypoints_2d": [1.0] * 53}]}, "53 numbers"),
    "half a hand": ({"people": [{"hand_left_keypoints_2d": [1.0] * 30}]}, "21 points"),
    "misspelt": ({"people": [{"pose_keypoint_2d": [1.0] * 54}]}, "pose_keypoints_2d"),
    "animals": ({"people": [], "animals": [[1]]}, "animals"),
    "not a number": ({"people": [{"pose_keypoints_2d": [float("nan")] * 54}]}, "pose_keypoints_2d"),
    "two frames": ([{"people": []}, {"people": []}], "pose"),
    "no people": ({"canvas_width": 4, "canvas_height": 4}, "people"),
    "no file": ("nowhere.json", "nowhere.json"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    given, says = REFUSED[name]
    with pytest.raises(ldmkit.InputError) as error:
        drawn(given)
    assert says in str(error.value), str(error.value)


def test_it_does_not_find_people_in_a_picture(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (8, 8)).save(photo)
    for raw in (Pose.from_text(str(photo)), Image.new("RGB", (8, 8))):
        with pytest.raises(ldmkit.InputError, match="does not find them in a picture") as caught:
            Pose.parse(raw, "hint")
        assert caught.value.where == "hint" and "JSON" in str(caught.value)


def test_points_far_outside_are_cut_off() -> None:
    points = np.full((18, 2), 30.0)
    points[3] = (-5000, 40)
    points[4] = (9000, 9000)
    found = drawn({"people": [{"pose_keypoints_2d": numbers(points)}]}, size=(64, 64))
    assert found.shape == (64, 64, 3) and found[36:44, 0].any()


def test_a_person_is_one_value() -> None:
    value = Pose.parse({"people": [{"pose_keypoints_2d": [1] * 54}], "canvas_width": 4, "canvas_height": 4}, "pose")
    assert isinstance(value, People) and value == People.of(json.loads(value.model_dump_json()))
