"""Resizes, crops and flips pictures together with what lies on them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ldmkit import Geometry, InputError, Sample, ValueMap
from ldmkit_training.data.places import Place, replaced
from ldmkit_training.data.section import DataSection
from ldmkit_training.data.sources.lying import SpatialInput, resized

KEPT = 1 / 3
"""A box is kept if at least this share of its area lies inside the crop; it is clipped to the crop."""


class Window(NamedTuple):
    """What is seen of a picture: whole pixels [left, right) x [top, bottom), mirrored afterwards or not."""

    left: int
    top: int
    right: int
    bottom: int
    mirrored: bool = False


class Draw(NamedTuple):
    """Random numbers in [0, 1) for one view of a sample."""

    scale: float
    x: float
    y: float
    mirror: float


def random_draw(*key: object) -> Draw:
    """Four numbers that depend on nothing but the key (seed, epoch, index of the sample)."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=32).digest()
    return Draw(*(int.from_bytes(digest[8 * i : 8 * i + 8], "little") / 2**64 for i in range(4)))


def window(size: tuple[int, int], section: DataSection, drawn: Draw | None) -> Window:
    """What a section shows of a picture of (height, width); without a draw the centre, never mirrored.

    Raises:
        InputError: `picture-size`, where `fit` is exact.
    """
    height, width = size
    mirrored = drawn is not None and drawn.mirror < section.mirror
    if section.fit in ("resize", "exact"):
        if section.fit == "exact" and size != section.size:
            what = f"the picture has {height} rows and {width} columns"
            raise InputError("picture-size", what, fits=f"{section.size[0]} x {section.size[1]}, or another `fit`")
        return Window(0, 0, width, height, mirrored)
    unit = min(height / section.size[0], width / section.size[1])
    x, y = 0.5, 0.5
    if section.fit == "random-crop" and drawn is not None:
        least, most = section.crop_scale
        if section.buckets is not None and section.buckets.small != "enlarge":
            least, most = (min(1.0, max(share, 1 / unit)) for share in (least, most))  # no window needs enlarging
        unit, x, y = unit * (least + (most - least) * drawn.scale), drawn.x, drawn.y
    rows, columns = (max(1, round(unit * side)) for side in section.size)
    top, left = round(y * (height - rows)), round(x * (width - columns))
    return Window(left, top, left + columns, top + rows, mirrored)


def fitted(
    sample: Sample,
    geometry: Mapping[str, Geometry],
    section: DataSection,
    drawn: Draw | None,
    lying: Mapping[Place, SpatialInput] = {},
    told: Sequence[str] = (),
) -> tuple[np.ndarray, dict[str, Any]]:
    """A sample's picture (H,W,3) uint8 at the section's size, and its inputs, cropped and mirrored with it.

    Args:
        told: inputs that become `sizes_of_view`.

    Raises:
        InputError: `picture-size`; `bad-sample`: boxes, maps or hints that no crop can be applied to.
    """
    image = sample.image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        what = f"a picture of shape {image.shape} and {image.dtype}"
        raise InputError("bad-sample", what, where=sample.id, fits="(height, width, 3) of uint8")
    size = (image.shape[0], image.shape[1])
    try:
        seen = window(size, section, drawn)
    except InputError as problem:
        problem.where = sample.id
        raise
    inputs: dict[str, Any] = {}
    for name, value in sample.inputs.items():
        place = f"{sample.id}: {name}"
        rule = geometry.get(name, "none")
        if rule == "boxes":
            value = fit_boxes(value, size, seen, place)
        elif rule == "map":
            value = fit_map(value, size, seen, section.size, place)
        inputs[name] = value

    inputs |= dict.fromkeys(told, sizes_of_view(size, seen, section.size))

    def moved(values: np.ndarray, place: Place) -> np.ndarray:
        where = f"{sample.id}: {place}"
        return fit_lying(values, lying[place], size, seen, where, exact=section.fit == "exact")

    return fit_picture(image, seen, section.size), replaced(inputs, lying, moved)


def sizes_of_view(picture: tuple[int, int], seen: Window, size: tuple[int, int]) -> dict[str, list[int]]:
    """What SDXL is told of a view (arXiv:2307.01952, section 2.2): the picture's (height, width) before it was resized,
    and the (top, left) at which the view begins on the resized and mirrored one, in pixels."""
    height, width = picture
    left = width - seen.right if seen.mirrored else seen.left
    top = round(seen.top * size[0] / (seen.bottom - seen.top))
    left = round(left * size[1] / (seen.right - seen.left))
    return {"original": [height, width], "crop": [top, left], "target": list(size)}


def fit_picture(image: np.ndarray, seen: Window, size: tuple[int, int]) -> np.ndarray:
    """The window of (H,W,3) uint8 at (height, width): bicubic, with antialiasing where it gets smaller."""
    cut = resized(image, (seen.left, seen.top, seen.right, seen.bottom), size)
    return np.ascontiguousarray(cut[:, ::-1] if seen.mirrored else cut)


def fit_map(labels: Any, picture: tuple[int, int], seen: Window, size: tuple[int, int], where: str) -> np.ndarray:
    """The window of a label map at (height, width): each pixel takes the label under its centre."""
    labels = np.asarray(labels)
    if labels.shape != picture or labels.dtype.kind not in "iu":
        what = f"a map of shape {labels.shape} and {labels.dtype} for a picture of {picture}"
        raise InputError("bad-sample", what, where=where, fits="one integer a pixel")
    return _under(labels, picture, seen, size)


def fit_lying(
    values: np.ndarray, lies: SpatialInput, picture: tuple[int, int], seen: Window, where: str, *, exact: bool = False
) -> np.ndarray:
    """The window, which is one of the picture, of what lies on it at a resolution of its own; at its size.

    Raises:
        InputError: `bad-sample`: of other proportions than its picture, where a part of it is seen; `picture-size`:
            not of its size already, where it must be (`exact`).
    """
    (height, width), (rows, columns) = values.shape[:2], picture
    if exact and (height, width) != lies.size:
        what = f"a {lies.kind} of {height} rows and {width} columns"
        raise InputError("picture-size", what, where=where, fits=f"{lies.size[0]} x {lies.size[1]}, or another `fit`")
    if seen[:4] != (0, 0, columns, rows) and abs(width * rows - columns * height) > max(rows, columns):
        what = f"{height} rows and {width} columns, on a picture of {rows} and {columns}: it cannot be cropped with it"
        raise InputError("bad-sample", what, where=where, fits="the picture's proportions")
    if lies.kind in ("mask", "labels"):
        return _under(values, picture, seen, lies.size)
    across, down = [x * width / columns for x in seen[:4:2]], [y * height / rows for y in seen[1:4:2]]
    box = (across[0], down[0], across[1], down[1])
    if isinstance(lies.kind, ValueMap):
        return _values_in(values, box, lies.kind, lies.size, seen.mirrored, where)
    cut = resized(values, box, lies.size)
    return np.ascontiguousarray(cut[:, ::-1] if seen.mirrored else cut)


def _values_in(
    values: np.ndarray,
    box: tuple[float, float, float, float],
    rule: ValueMap,
    size: tuple[int, int],
    mirrored: bool,
    where: str,
) -> np.ndarray:
    """The box of a map of values (h,w,channels): bilinear, with antialiasing; mirrored, components along x change their
    sign.

    Raises:
        InputError: `bad-sample`: it is to be mirrored, and does not say what that does to it.
    """
    cut = resized(values, box, size, Image.Resampling.BILINEAR)
    if not mirrored:
        return cut
    if rule.signs is None:
        what = "a map of values that does not say what a mirror does to its channels"
        raise InputError("bad-sample", what, where=where, fits="ValueMap(mirror=...), or data.mirror: 0")
    return np.ascontiguousarray(cut[:, ::-1] * np.array(rule.signs, dtype=np.float32))


def _under(values: np.ndarray, picture: tuple[int, int], seen: Window, size: tuple[int, int]) -> np.ndarray:
    rows = _centres(size[0], seen.top, seen.bottom, values.shape[0], picture[0])
    columns = _centres(size[1], seen.left, seen.right, values.shape[1], picture[1])
    return np.ascontiguousarray(values[rows[:, None], columns[::-1] if seen.mirrored else columns])


def _centres(count: int, start: int, stop: int, own: int, whole: int) -> np.ndarray:
    """Which of `own` cells along a side of `whole` pixels lie under the centres of `count` shares of [start, stop)."""
    doubled = 2 * count * start + (2 * np.arange(count, dtype=np.int64) + 1) * (stop - start)
    return doubled * own // (2 * count * whole)


def fit_boxes(boxes: Any, picture: tuple[int, int], seen: Window, where: str) -> list[dict[str, Any]]:
    """Boxes relative to the window, clipped to it; one of which less than a third is left is not kept."""
    whole = seen == Window(0, 0, picture[1], picture[0])
    if not isinstance(boxes, Sequence) or isinstance(boxes, str):
        raise InputError("bad-sample", f"a {type(boxes).__name__} is no list of boxes", where=where, fits=_BOXES)
    kept: list[dict[str, Any]] = []
    for i, entry in enumerate(boxes):
        corners = _corners(entry, f"{where}[{i}]")
        if whole:
            kept.append(dict(entry))
        elif (cut := _cut(corners, picture, seen)) is not None:
            kept.append({**entry, "box": cut})
    return kept


def check_boxes(inputs: Mapping[str, Any], geometry: Mapping[str, Geometry], where: str) -> None:
    """Whether a sample's boxes are of the form that crops are applied to.

    Raises:
        InputError: `bad-sample`.
    """
    for name, value in inputs.items():
        if geometry.get(name) == "boxes":
            fit_boxes(value, (1, 1), Window(0, 0, 1, 1), f"{where}: {name}")


_BOXES = '{"label": ..., "box": [x0, y0, x1, y1]} with corners relative to the picture'


def _corners(entry: Any, where: str) -> list[float]:
    if not isinstance(entry, Mapping) or "box" not in entry or not {"format", "normalised", "size"}.isdisjoint(entry):
        raise InputError("bad-sample", f"no box to crop: {str(entry)[:80]}", where=where, fits=_BOXES)
    box = entry["box"]
    numbers = isinstance(box, Sequence) and all(isinstance(v, (int, float)) for v in box) and len(box) == 4
    if not numbers or not (box[0] < box[2] and box[1] < box[3]):
        raise InputError("bad-sample", f"no box: {str(box)[:80]}", where=where, fits=_BOXES)
    return [float(v) for v in box]


def _cut(box: Sequence[float], picture: tuple[int, int], seen: Window) -> list[float] | None:
    height, width = picture
    rows, columns = seen.bottom - seen.top, seen.right - seen.left
    moved = [
        (box[0] * width - seen.left) / columns,
        (box[1] * height - seen.top) / rows,
        (box[2] * width - seen.left) / columns,
        (box[3] * height - seen.top) / rows,
    ]
    x0, y0, x1, y1 = (min(max(v, 0.0), 1.0) for v in moved)
    area = (moved[2] - moved[0]) * (moved[3] - moved[1])
    if x1 <= x0 or y1 <= y0 or (x1 - x0) * (y1 - y0) < KEPT * area:
        return None
    return [1 - x1, y0, 1 - x0, y1] if seen.mirrored else [x0, y0, x1, y1]
