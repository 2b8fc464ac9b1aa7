"""Annotation files as tools write them: ids, orders, segmentations; formats that are others, refused by name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sources import opened, picture

from ldmkit.errors import InputError

RLE: dict[str, Any] = {"size": [8, 12], "counts": "0`0"}
POLYGON = [[1.0, 1.0, 5.0, 1.0, 5.0, 4.0]]


def content(seed: int, ids: str) -> dict[str, Any]:
    """Pictures and annotations in any order, categories with gaps."""
    draws = random.Random(seed)

    def made(number: int) -> Any:
        return {"int": number, "float": float(number), "text": f"{number:06}"}[ids]

    images = [{"id": made(1000 + n), "file_name": f"{n}.png", "width": 12, "height": 8} for n in range(4)]
    annotations = [
        {
            "id": n, "image_id": made(1000 + n % 3), "category_id": made(draws.choice([1, 13, 90])), "area": 12.5,
            "bbox": [draws.uniform(0, 5), draws.uniform(0, 3), draws.uniform(1, 6), draws.uniform(1, 5)],
            "iscrowd": int(n == 5), "segmentation": RLE if n == 5 else POLYGON,
        }
        for n in range(9)
    ]  # fmt: skip
    categories = [{"id": made(n), "name": f"c{n}", "supercategory": "x"} for n in (90, 1, 13)]
    for listed in (images, annotations, categories):
        draws.shuffle(listed)
    return {
        "info": {"year": 2017},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


@pytest.mark.parametrize("ids", ["int", "float", "text"])
@pytest.mark.parametrize("crowds", ["drop", "keep", "group"])
def test_boxes_are_those_of_pycocotools(tmp_path: Path, ids: str, crowds: str) -> None:
    for number in range(4):
        picture(tmp_path / f"p/{number}.png")
    raw = content(3, ids)
    (tmp_path / "a.json").write_text(json.dumps(raw))
    data = opened("coco", tmp_path, annotations="a.json", pictures="p", numbers=True, crowds=crowds)
    order = ["c1", "c13", "c90"]
    assert data.numbering["layout"] == order
    names = {entry["id"]: entry["name"] for entry in raw["categories"]}
    for index in range(4):
        image = next(entry for entry in raw["images"] if entry["file_name"] == data.id(index))
        own = [a for a in raw["annotations"] if a["image_id"] == image["id"] and (crowds != "drop" or not a["iscrowd"])]
        wanted = [
            (order.index(names[a["category_id"]]), [x / s for x, s in zip(_corners(a), (12, 8, 12, 8), strict=True)])
            for a in own
        ]
        found = [(box["label"], box["box"]) for box in data.inputs(index)["layout"]]
        assert [label for label, _ in found] == [label for label, _ in wanted]
        # corners of at most 1, in float64
        assert not own or np.allclose([box for _, box in found], [box for _, box in wanted], atol=1e-12)
    if ids == "int":
        _check_with_pycocotools(tmp_path / "a.json", raw)


def _corners(annotation: Any) -> list[float]:
    x, y, w, h = annotation["bbox"]
    return [x, y, x + w, y + h]


def _check_with_pycocotools(path: Path, raw: dict[str, Any]) -> None:
    """That the table above is what COCO's own reader has."""
    coco = pytest.importorskip("pycocotools.coco", reason="the other reader is not installed").COCO(str(path))
    for image in raw["images"]:
        own = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        assert [a["id"] for a in own] == [a["id"] for a in raw["annotations"] if a["image_id"] == image["id"]]


def test_what_a_file_and_its_folder_do_not_share_is_counted(tmp_path: Path) -> None:
    for name in ("0.png", "1.png", "9.png", "deep/7.png"):
        picture(tmp_path / "p" / name)
    (tmp_path / "p/8.jxl").write_bytes(b"x")
    raw = content(0, "int")
    (tmp_path / "a.json").write_text(json.dumps(raw))
    data = opened("coco", tmp_path, annotations="a.json", pictures="p", missing="allow")
    said = "; ".join(data.notes)
    for words in (
        "4 of 5 picture-like files read; not read: 1 .jxl",
        "2 picture(s) are not there: '2.png', '3.png'",
        "2 picture(s) are not in it: '9.png', 'deep/7.png'",
        "1 box(es) of crowds left out",
    ):
        assert words in said, said
    assert sorted(data.id(i) for i in range(len(data))) == ["0.png", "1.png"]


OTHERS: dict[str, Any] = {
    "labelme": {"version": "5", "flags": {}, "shapes": [], "imagePath": "0.png", "imageData": None},
    "a project of VIA": {"_via_settings": {}, "_via_img_metadata": {}},
    "an export of VIA": {"0.png123": {"filename": "0.png", "size": 123, "regions": [], "file_attributes": {}}},
    "COCO results": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}],
    "captions: FILE": {"images": [], "annotations": [{"image_id": 1, "id": 1, "caption": "x"}]},
    "a list": [],
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused_by_name(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "p/0.png")
    (tmp_path / "a.json").write_text(json.dumps(OTHERS[name]))
    with pytest.raises(InputError) as caught:
        opened("coco", tmp_path, annotations="a.json", pictures="p")
    assert caught.value.code == "input.annotation" and name in caught.value.what and caught.value.where


def test_the_labels_of_yolo_are_no_captions(tmp_path: Path) -> None:
    for number, text in enumerate(
        ("0 0.5 0.5 0.25 0.1\n11 0.1 0.2 0.3 0.4\n", "2 .1 .1 .2 .2 .3 .3\n", "2 dogs, 0.5 m\n")
    ):
        picture(tmp_path / f"p/{number}.png")
        (tmp_path / f"p/{number}.txt").write_text(text)
    data = opened("folder", tmp_path, folder="p", captions=".txt")
    for index in (0, 1):
        with pytest.raises(InputError, match="as YOLO writes them"):
            data.inputs(index)
    assert data.inputs(2) == {"text": "2 dogs, 0.5 m"}
