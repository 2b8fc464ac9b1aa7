"""Boxes of COCO's format whose four numbers mean something else: refused where it shows, counted where it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import ldmkit

CORNERS = [{"bbox": [10, 8, 30, 24], "area": 320}, {"bbox": [4, 4, 20, 30], "area": 416.0}]


def opened(folder: Path, annotations: list[dict[str, Any]], **config: Any) -> Any:
    (folder / "p").mkdir(exist_ok=True)
    Image.new("RGB", (48, 32)).save(folder / "p" / "1.png")
    content = {
        "images": [{"id": 1, "file_name": "1.png", "width": 48, "height": 32}],
        "annotations": [{"id": i, "image_id": 1, "category_id": 3, **box} for i, box in enumerate(annotations)],
        "categories": [{"id": 3, "name": "cell"}],
    }
    (folder / "a.json").write_text(json.dumps(content), encoding="utf-8")
    return ldmkit.get("data", "coco")(annotations="a.json", pictures="p", **config).open(folder)


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([{"bbox": [0.1, 0.2, 0.5, 0.5]}, {"bbox": [0, 0, 1, 1]}], "relative"),
        ([{"bbox": [0.25, 0.25, 0.5, 0.75]}], "times the picture's width"),
        (CORNERS, "2 of 2 boxes"),
        ([{"bbox": [1, 2, 3, 4], "bbox_mode": 0}], "bbox_mode is 0"),
        ([{"bbox": [1, 2, 3, 4], "bbox_mode": "XYXY_ABS"}], "bbox_mode"),
    ],
)
@pytest.mark.parametrize("how", ["error", "mend"])
def test_other_units_are_refused(tmp_path: Path, boxes: list[dict[str, Any]], words: str, how: str) -> None:
    with pytest.raises(ldmkit.InputError, match=words):
        opened(tmp_path, boxes, boxes=how)


@pytest.mark.parametrize(
    "boxes",
    [
        [{"bbox": [0, 0, 1, 1]}, {"bbox": [10, 8, 20, 16], "area": 320}],
        [{"bbox": [0, 0, 20, 16], "area": 320}],  # corners and sides are the same here
        [{"bbox": [10, 8, 20, 16], "area": 170.5}],  # of a polygon
        [{"bbox": [10, 8, 20, 16], "bbox_mode": 1}],
        [],
    ],
)
def test_boxes_in_pixels_are_read(tmp_path: Path, boxes: list[dict[str, Any]]) -> None:
    data = opened(tmp_path, boxes)
    assert len(data.known(0)["layout"]) == len(boxes) and not data.notes


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"attributes": {"rotation": 30.0}}, "1 box(es) turned by `rotation`, which is not read"),
        ({"rotation": 12}, "turned by `rotation`"),
        ({"ignore": 1}, "1 box(es) with `ignore`, which is not read"),
        ({"attributes": {"difficult": True}}, "with `difficult`"),
        ({"id": 0}, "1 box(es) whose id another one has"),
        ({"bbox": [2, 2, 9, 9]}, "1 box(es) that stand twice, and are kept"),
    ],
)
def test_what_is_said_of_a_box_is_counted(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    (note,) = opened(tmp_path, [{"bbox": [2, 2, 9, 9]}, {"bbox": [10, 8, 20, 16], **more}]).notes
    assert words in note


@pytest.mark.parametrize("more", [{"attributes": {"rotation": 0.0}}, {"ignore": 0}, {"attributes": {"occluded": True}}])
def test_what_changes_nothing_is_not(tmp_path: Path, more: dict[str, Any]) -> None:
    assert not opened(tmp_path, [{"bbox": [10, 8, 20, 16], **more}]).notes
