"""What annotations of COCO's format say about their boxes that changes what the four numbers mean."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ldmkit import InputError

FLAGS = ("ignore", "ignored", "difficult")
"""Keys of an annotation that say, where they are true, that its box does not count."""
_XYWH = (1, "1", "BoxMode.XYWH_ABS", "XYWH_ABS", "xywh")


def check_unit(annotations: Sequence[Mapping[str, Any]], where: str) -> None:
    """Refuse files whose boxes are [x, y, width, height] of something else than pixels, as far as it shows.

    Raises:
        InputError: `annotation`: all lie within one pixel, so that they are relative; the areas are those of corners
            [x0, y0, x1, y1]; another `bbox_mode` than that of COCO.
    """
    boxes = [entry["bbox"] for entry in annotations if _numbers(entry.get("bbox"))]
    if boxes and all(0 <= value <= 1 for box in boxes for value in box):
        what = f"all {len(boxes)} boxes lie within the first pixel: they are relative to their pictures"
        fits = "`bbox` in pixels: x and width times the picture's width, y and height times its height"
        raise InputError("annotation", what, where=f"{where}: annotations", fits=fits)
    for i, entry in enumerate(annotations):
        if "bbox_mode" in entry and entry["bbox_mode"] not in _XYWH:
            fits = "[x, y, width, height] in pixels, bbox_mode 1"
            what = f"bbox_mode is {entry['bbox_mode']!r}"
            raise InputError("annotation", what, where=f"{where}: annotations[{i}]", fits=fits)
    told = [_area_of(entry) for entry in annotations if _numbers(entry.get("bbox")) and _is_number(entry.get("area"))]
    if told and "corners" in told and set(told) <= {"corners", "both"}:
        what = f"`area` is that of corners [x0, y0, x1, y1] in {told.count('corners')} of {len(told)} boxes"
        raise InputError("annotation", what, where=f"{where}: annotations", fits="`bbox`: [x, y, width, height]")


def said_of_boxes(annotations: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """How many annotations say something of their box that is not read, by what they say."""
    counts: Counter[str] = Counter()
    ids: set[str] = set()
    boxes: set[str] = set()
    for entry in annotations:
        for name in dict.fromkeys(_meanings(entry)):
            counts[f"{name}, which is not read"] += 1
        if (number := entry.get("id")) is not None:
            counts["whose id another one has"] += repr(number) in ids
            ids.add(repr(number))
        same = repr([entry.get(key) for key in ("image_id", "category_id", "bbox")])
        counts["that stand twice, and are kept"] += same in boxes
        boxes.add(same)
    return +counts


def _meanings(entry: Mapping[str, Any]) -> Iterator[str]:
    own = entry.get("attributes")
    for fields in (entry, own if isinstance(own, Mapping) else {}):
        for name in ("rotation", "angle", "theta"):
            if _is_number(fields.get(name)) and fields[name] != 0:
                yield f"turned by `{name}`"
        for name in FLAGS:
            if fields.get(name) in (True, 1, "1", "true", "True"):
                yield f"with `{name}`"


def _area_of(entry: Mapping[str, Any]) -> str:
    a, b, c, d = entry["bbox"]
    sides, corners = c * d, (c - a) * (d - b)
    fits = [math.isclose(entry["area"], area, rel_tol=1e-3, abs_tol=1e-6) for area in (sides, corners)]
    return "both" if all(fits) else "corners" if fits[1] and c > a and d > b else "sides"


def _numbers(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
