"""Boxes from an annotation file of COCO's format."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from ldmkit import Example, Geometry, InputError, integer, read_file
from ldmkit.files.json import parse_json
from ldmkit_training.data.sources.coco_meaning import check_unit, said_of_boxes
from ldmkit_training.data.sources.coco_other import other_format
from ldmkit_training.data.sources.finding import Listing, listing, normal
from ldmkit_training.data.sources.records import FileData, Record, Records, missing_notes, write_example_image

MAX_BYTES = 2**31
EDGE = 1e-6


class CocoData(FileData):
    """Part `coco`: pictures with labelled boxes, captions, or both. A picture without boxes has an empty layout.

    Args:
        annotations: the JSON file of boxes; null: captions alone.
        captions: the JSON file of captions, which become the input `text`; of several captions of a picture one is
            drawn whenever it is used.
        pictures: folder that its `file_name`s start from.
        name: of the input, a list of {"label", "box": [x0, y0, x1, y1]} relative to the picture, in the file's order.
        numbers: labels are positions in the file's categories, sorted by id, not names.
        boxes: what happens to a box that is empty or leaves its picture. error; or mend: it is clipped to the picture,
            and left out if nothing remains. Both are counted.
        crowds: what happens to boxes of crowds (`iscrowd`): left out, kept, or kept with `group_of`; counted.
        most: keep at most so many boxes of a picture, the largest ones; null: all.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example({"annotations": "boxes.json", "pictures": "pictures"}),
        Example({"annotations": "boxes.json", "pictures": "pictures", "numbers": True, "most": 1, "crowds": "group"}),
    )

    annotations: str | None = None
    captions: str | None = None
    pictures: str
    name: str = "layout"
    numbers: bool = False
    boxes: Literal["error", "mend"] = "error"
    crowds: Literal["drop", "keep", "group"] = "drop"
    most: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> CocoData:
        if self.annotations is None and self.captions is None:
            raise ValueError("annotations, captions or both: the files that say what is in the pictures")
        return self

    def open(self, folder: Path) -> Records:
        texts = None if self.captions is None else self._captions(folder)
        boxes = None if self.annotations is None else self._boxes(folder, self.annotations)
        if boxes is None or texts is None:
            found = boxes or texts
            assert found is not None
            return found
        return _both(boxes, texts, self)

    def _captions(self, folder: Path) -> Records:
        assert self.captions is not None
        source, root = folder / self.captions, folder / self.pictures
        content = read_annotations(source, ("images", "annotations"))
        files = listing(root)
        images = _images(content, files.pictures, source, root)
        found: dict[Id, list[str]] = {key: [] for key in images}
        for i, entry in enumerate(content["annotations"]):
            image, caption = _id(entry.get("image_id")), entry.get("caption")
            if image is None or image not in images or not isinstance(caption, str):
                raise _wrong(source, "annotations", i, entry, "the `image_id` of one of its images, and a `caption`")
            found[image] += [caption.strip()] if caption.strip() else []
        notes = self._missing(images, files, source, root)
        without = [images[key].name for key, captions in found.items() if not captions]
        notes += missing_notes(without, "picture(s) have no caption", self.missing, str(source))
        records = [
            Record(image.name, files.pictures[image.name], {"text": found[key]} if found[key] else {}, {}, image.size)
            for key, image in images.items()
            if image.name in files.pictures
        ]
        return Records(records, {"text": "none"}, self.background, notes, choices=frozenset({"text"}))

    def _boxes(self, folder: Path, annotations: str) -> Records:
        source, root = folder / annotations, folder / self.pictures
        content = read_annotations(source)
        files = listing(root)
        images = _images(content, files.pictures, source, root)
        check_unit(content["annotations"], str(source))
        boxes = _Boxes(self, content, images, source)
        kept, counts = boxes.read()
        notes = self._missing(images, files, source, root)
        counts = {**counts, **said_of_boxes(content["annotations"])}
        notes += [f"{source}: {count} box(es) {what}" for what, count in counts.items()]
        records = [
            Record(image.name, files.pictures[image.name], {self.name: kept[key]}, {}, image.size)
            for key, image in images.items()
            if image.name in files.pictures
        ]
        geometry: dict[str, Geometry] = {self.name: "boxes"}
        numbering = {self.name: boxes.names} if self.numbers else {}
        return Records(records, geometry, self.background, notes, numbering=numbering)

    def _missing(self, images: Mapping[Id, _Image], files: Listing, source: Path, root: Path) -> list[str]:
        """What the file or the folder has and the other has not."""
        names = {image.name for image in images.values()}
        notes = files.left_out()
        absent = [name for name in names if name not in files.pictures]
        notes += missing_notes(sorted(absent), "picture(s) are not there", self.missing, str(root))
        unknown = [name for name in files.pictures if name not in names]
        return notes + missing_notes(unknown, "picture(s) are not in it", self.missing, str(source))

    def write_example(self, folder: Path) -> None:
        names = ("0.png", "1.png")
        for number, name in enumerate(names):
            write_example_image(folder / self.pictures / name, number)
        boxes = ((1, 1, [0, 0, 6, 8]), (1, 2, [3, 2, 9, 6]), (2, 2, [1, 1, 2, 2]))
        content = {
            "images": [{"id": 1 + i, "file_name": name, "width": 12, "height": 8} for i, name in enumerate(names)],
            "annotations": [
                {"id": i, "image_id": image, "category_id": category, "bbox": box, "iscrowd": int(i == 1)}
                for i, (image, category, box) in enumerate(boxes)
            ],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }
        if self.annotations is not None:
            (folder / self.annotations).write_text(json.dumps(content))
        if self.captions is not None:
            texts = [{"id": i, "image_id": 1 + i // 2, "caption": f"caption {i}"} for i in range(4)]
            (folder / self.captions).write_text(json.dumps({"images": content["images"], "annotations": texts}))


Id = int | str
"""Of pictures and categories: numbers in COCO's own files, text in those of some tools."""


def _whole(value: Any) -> int | None:
    """A whole number, 640.0 among them."""
    return int(value) if isinstance(value, float) and value.is_integer() else integer(value)


def _id(value: Any) -> Id | None:
    return value if isinstance(value, str) and value else _whole(value)


class _Image(NamedTuple):
    name: str
    size: tuple[int, int]


def _both(boxes: Records, texts: Records, config: CocoData) -> Records:
    """Boxes and captions of the same pictures."""
    captions = {record.id: record.inputs for record in texts.records}
    known = {record.id for record in boxes.records}
    notes = list(dict.fromkeys([*boxes.notes, *texts.notes]))
    where, missing = f"{config.annotations}, {config.captions}", config.missing
    notes += missing_notes(
        [n for n in known if n not in captions], "picture(s) have boxes and no captions", missing, where
    )
    notes += missing_notes(
        [n for n in captions if n not in known], "picture(s) have captions and no boxes", missing, where
    )
    records = [record._replace(inputs={**record.inputs, **captions.get(record.id, {})}) for record in boxes.records]
    return Records(
        records, {**boxes.geometry, **texts.geometry}, config.background, notes,
        numbering=boxes.numbering, choices=texts.choices,
    )  # fmt: skip


def read_annotations(path: Path, lists: Sequence[str] = ("images", "annotations", "categories")) -> dict[str, Any]:
    """The file's content, with its lists of images, annotations and categories.

    Raises:
        InputError: those of `read_file`; `json-invalid`, `annotation`.
    """
    content = parse_json(read_file(path, MAX_BYTES, InputError), str(path), InputError)
    for key in lists:
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            fits = f"an object with the lists {', '.join(lists)}"
            if other := other_format(content):
                raise InputError("annotation", f"it is {other}, which is not read", where=str(path), fits=fits)
            raise InputError("annotation", f"there is no list {key!r} of objects", where=str(path), fits=fits)
    found: dict[str, Any] = content
    return found


def _wrong(path: Path, key: str, i: int, entry: Mapping[str, Any], fits: str) -> InputError:
    shown = json.dumps(entry, ensure_ascii=False)[:120]
    return InputError("annotation", f"not as it should be: {shown}", where=f"{path}: {key}[{i}]", fits=fits)


def _images(content: Mapping[str, Any], files: Mapping[str, Path], path: Path, root: Path) -> dict[Id, _Image]:
    found: dict[Id, _Image] = {}
    names: set[str] = set()
    for i, entry in enumerate(content["images"]):
        number, name = _id(entry.get("id")), entry.get("file_name")
        height, width = _whole(entry.get("height")), _whole(entry.get("width"))
        if number is None or not isinstance(name, str) or not (height and width and height > 0 and width > 0):
            raise _wrong(path, "images", i, entry, "id, file_name, and a width and height > 0")
        if number in found or normal(name) in names:
            raise _wrong(path, "images", i, entry, "ids and file names that stand once")
        names.add(normal(name))
        found[number] = _Image(normal(name), (height, width))
    if not any(name in files for name in names):
        fits = f"file names such as {next(iter(files))!r}"
        raise InputError("annotation", "none of its pictures is in the folder", where=f"{path}, {root}", fits=fits)
    return found


class _Boxes:
    """Annotations to layouts, counting what is done to them."""

    def __init__(self, config: CocoData, content: Mapping[str, Any], images: Mapping[Id, _Image], path: Path) -> None:
        self.config, self.content, self.images, self.path = config, content, images, path
        self.counts: Counter[str] = Counter()
        self.labels = self._labels()

    def read(self) -> tuple[dict[Id, list[dict[str, Any]]], Mapping[str, int]]:
        """Image id -> boxes, and how many were mended or left out, by what was wrong."""
        kept: dict[Id, list[dict[str, Any]]] = {key: [] for key in self.images}
        for i, entry in enumerate(self.content["annotations"]):
            image, label = _id(entry.get("image_id")), _id(entry.get("category_id"))
            if image is None or image not in self.images:
                raise _wrong(self.path, "annotations", i, entry, "the `image_id` of one of its images")
            if label is None or label not in self.labels:
                raise _wrong(self.path, "annotations", i, entry, f"a `category_id` among {list(self.labels)[:20]}")
            crowd = bool(entry.get("iscrowd", 0))
            if crowd and self.config.crowds == "drop":
                self.counts["of crowds left out"] += 1
                continue
            box = self._box(i, entry, self.images[image].size)
            if box is not None:
                group = {"group_of": True} if crowd and self.config.crowds == "group" else {}
                kept[image].append({"label": self.labels[label], "box": box, **group})
        if self.config.most is not None:
            kept = {key: self._largest(boxes, self.config.most) for key, boxes in kept.items()}
        return kept, self.counts

    def _labels(self) -> dict[Id, int | str]:
        found: dict[Id, str] = {}
        for i, entry in enumerate(self.content["categories"]):
            number, name = _id(entry.get("id")), entry.get("name")
            if number is None or not isinstance(name, str) or number in found or name in found.values():
                raise _wrong(self.path, "categories", i, entry, "an id and a name that stand once")
            found[number] = name
        if len({type(number) for number in found}) > 1:
            raise _wrong(
                self.path, "categories", 0, self.content["categories"][0], "ids that are all numbers or all text"
            )
        order = sorted(found, key=lambda number: (str(number) if isinstance(number, str) else "", number))
        self.names = [found[number] for number in order]
        return {number: order.index(number) if self.config.numbers else found[number] for number in order}

    def _box(self, i: int, entry: Mapping[str, Any], size: tuple[int, int]) -> list[float] | None:
        raw, (height, width) = entry.get("bbox"), size
        numbers = isinstance(raw, list) and len(raw) == 4 and all(type(v) in (int, float) for v in raw)
        if not numbers or not isinstance(raw, list):
            raise _wrong(self.path, "annotations", i, entry, "`bbox`: [x, y, width, height] in pixels")
        x, y, w, h = raw
        box = [x / width, y / height, (x + w) / width, (y + h) / height]
        inside = [min(max(v, 0.0), 1.0) for v in box]
        if max(abs(a - b) for a, b in zip(box, inside, strict=True)) > EDGE and w > 0 and h > 0:
            self._mend("clipped to their pictures", i, entry, f"a box inside the picture, {width} x {height}")
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            self._mend("without area left out", i, entry, "a width and height > 0")
            return None
        return inside

    def _mend(self, what: str, i: int, entry: Mapping[str, Any], fits: str) -> None:
        if self.config.boxes == "error":
            raise _wrong(self.path, "annotations", i, entry, f"{fits}; or boxes: mend")
        self.counts[what] += 1

    def _largest(self, boxes: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
        self.counts[f"left out beyond the {most} largest of a picture"] += max(0, len(boxes) - most)
        areas = [(b["box"][2] - b["box"][0]) * (b["box"][3] - b["box"][1]) for b in boxes]
        chosen = sorted(range(len(boxes)), key=lambda i: -areas[i])[:most]
        return [boxes[i] for i in sorted(chosen)]
