"""Are there cells where the boxes are? Boxes of held-out photographs, drawn by the model of `examples/blood_cells`.

    python benchmarks/blood_cells_eval.py examples/blood_cells/recipe.yaml --checkpoints --out sheet.png

For every held-out photograph a picture is drawn from its boxes. Measured is the overlap (intersection over union)
of the boxes with what looks like a cell, for the boxes asked for and for those of another photograph, on the
drawings and, as a ceiling, on the photographs. Boxes are rectangles and many cells are not annotated, so the ceiling
is far from 1. Two segmentations by colour: all boxes against dark (green channel below Otsu's threshold), boxes of
white cells against purple (blue exceeds green by 45 of 255).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from real_pictures import Held, Picture, measure, options

Mask = NDArray[np.bool_]
OUTLINES = {"RBC": (200, 0, 0), "WBC": (0, 0, 255), "Platelets": (0, 140, 0)}


def otsu(values: NDArray[Any]) -> int:
    """The threshold between two classes of 8-bit values with the largest variance between them (Otsu 1979)."""
    counts = np.bincount(values.ravel(), minlength=256).astype(float)
    below, sums = counts.cumsum(), (counts * np.arange(256)).cumsum()
    above = below[-1] - below
    spread = (sums[-1] * below / below[-1] - sums) ** 2 / np.maximum(below * above, 1)
    return int(spread.argmax())


def dark(picture: Picture) -> Mask:
    """Where the stain is: red and white cells absorb green light."""
    return np.asarray(picture[..., 1] <= otsu(picture[..., 1]))


def purple(picture: Picture) -> Mask:
    """Nuclei of white cells, and platelets."""
    return np.asarray(picture[..., 2].astype(int) - picture[..., 1] > 45)


def union(layout: Sequence[Mapping[str, Any]], shape: tuple[int, ...], only: str | None = None) -> Mask:
    """Pixels inside any box (of one class)."""
    mask = np.zeros(shape, bool)
    for entry in layout:
        if only in (None, entry["label"]):
            x0, y0, x1, y1 = entry["box"]
            rows = slice(round(y0 * shape[0]), round(y1 * shape[0]))
            mask[rows, round(x0 * shape[1]) : round(x1 * shape[1])] = True
    return mask


def overlap(a: Mask, b: Mask) -> float:
    """Intersection over union."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def scores(pictures: Sequence[Picture], asked: Held) -> dict[str, float]:
    """Mean overlap with the right and with other boxes, and how often the right ones win."""
    layouts = [row["layout"] for row in asked.inputs]
    found: dict[str, float] = {}
    for what, only, segment in (("all", None, dark), ("white", "WBC", purple)):
        rows = [i for i, boxes in enumerate(layouts) if only is None or any(box["label"] == only for box in boxes)]
        masks = [union(layouts[i], pictures[i].shape[:2], only) for i in rows]
        seen = [segment(pictures[i]) for i in rows]
        right = [overlap(a, b) for a, b in zip(seen, masks, strict=True)]
        other = [overlap(a, b) for a, b in zip(seen, masks[1:] + masks[:1], strict=True)]
        found[f"{what}_right"], found[f"{what}_shuffled"] = float(np.mean(right)), float(np.mean(other))
        found[f"{what}_right_wins"] = float(np.mean([r > o for r, o in zip(right, other, strict=True)]))
    boxes = [(i, box) for i, layout in enumerate(layouts) for box in layout if box["label"] == "Platelets"]
    hits = [bool(purple(pictures[i])[union([box], pictures[i].shape[:2])].any()) for i, box in boxes]
    found |= {"platelets": len(hits), "platelets_purple": sum(hits)}
    return {name: round(value, 3) for name, value in found.items()}


def shown(picture: Picture, inputs: Mapping[str, Any]) -> list[Picture]:
    """The picture, and the same with the boxes on it."""
    image = Image.fromarray(picture)
    brush = ImageDraw.Draw(image)
    for entry in inputs["layout"]:
        brush.rectangle(
            [v * picture.shape[1 - i % 2] for i, v in enumerate(entry["box"])], outline=OUTLINES[entry["label"]]
        )
    return [picture, np.asarray(image)]


if __name__ == "__main__":
    measure(options(str(__doc__)).parse_args(), scores, shown)
