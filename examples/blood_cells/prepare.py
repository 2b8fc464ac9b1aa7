"""Boxes of the BCCD pictures as two COCO files.

    git clone --depth 1 https://github.com/Shenggan/BCCD_Dataset
    python examples/blood_cells/prepare.py BCCD_Dataset/BCCD

Writes `data/{train,val}.json` and the pictures to `data/{train,val}/` beside this file; which picture is in which part
is the data set's own list. (Its `test` part is left alone.)
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image

NAMES = ("RBC", "WBC", "Platelets")


def boxes(path: Path) -> list[tuple[str, list[int]]]:
    """(name, [x, y, width, height] in pixels) of every object in a file of Pascal VOC's format."""
    found = []
    for entry in ElementTree.parse(path).getroot().iter("object"):
        left, top, right, bottom = (
            int(entry.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
        )
        found.append((entry.findtext("name", ""), [left, top, right - left, bottom - top]))
    return found


def coco(source: Path, stems: list[str]) -> dict[str, Any]:
    """The annotations of these pictures."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, stem in enumerate(stems, 1):
        with Image.open(source / "JPEGImages" / f"{stem}.jpg") as picture:
            width, height = picture.size
        images.append({"id": number, "file_name": f"{stem}.jpg", "width": width, "height": height})
        for name, box in boxes(source / "Annotations" / f"{stem}.xml"):
            entry = {"image_id": number, "category_id": NAMES.index(name) + 1, "bbox": box, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **entry})
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("source", type=Path, help="BCCD, with Annotations, ImageSets and JPEGImages in it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    options = parser.parse_args()
    for part in ("train", "val"):
        stems = (options.source / "ImageSets" / "Main" / f"{part}.txt").read_text().split()
        (options.out / part).mkdir(parents=True, exist_ok=True)
        for stem in stems:
            shutil.copyfile(options.source / "JPEGImages" / f"{stem}.jpg", options.out / part / f"{stem}.jpg")
        found = coco(options.source, stems)
        (options.out / f"{part}.json").write_text(json.dumps(found), encoding="utf-8")
        print(f"{len(stems)} pictures, {len(found['annotations'])} boxes in {options.out / part}.json")


if __name__ == "__main__":
    main()
