"""Are there cells where the boxes are? Boxes of held-out photographs, drawn by a model of `examples/blood_cells.py`.

    python benchmarks/blood_cells_eval.py --model cells --data bccd --out sheet.png

For every held-out photograph a picture is drawn from its boxes. Measured is the overlap (intersection over union)
of the boxes with what looks like a cell, for the boxes asked for and for those of another photograph, on the
drawings and, as a ceiling, on the photographs. Boxes are rectangles and many cells are not annotated, so the ceiling
is far from 1. Two segmentations by colour: all boxes against dark (green channel below Otsu's threshold), boxes of
white cells against purple (blue exceeds green by 45 of 255).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import ldmkit

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from blood_cells import NAMES, SIZE, Boxes, annotated

Mask = NDArray[np.bool_]
OUTLINES = dict(zip(NAMES, ((200, 0, 0), (0, 0, 255), (0, 140, 0)), strict=True))


def otsu(values: NDArray[Any]) -> int:
    """The threshold between two classes of 8-bit values with the largest variance between them (Otsu 1979)."""
    counts = np.bincount(values.ravel(), minlength=256).astype(float)
    below, sums = counts.cumsum(), (counts * np.arange(256)).cumsum()
    above = below[-1] - below
    spread = (sums[-1] * below / below[-1] - sums) ** 2 / np.maximum(below * above, 1)
    return int(spread.argmax())


def dark(picture: NDArray[np.uint8]) -> Mask:
    """Where the stain is: red and white cells absorb green light."""
    return np.asarray(picture[..., 1] <= otsu(picture[..., 1]))


def purple(picture: NDArray[np.uint8]) -> Mask:
    """Nuclei of white cells, and platelets."""
    return np.asarray(picture[..., 2].astype(int) - picture[..., 1] > 45)


def union(boxes: Boxes, only: str | None = None) -> Mask:
    """Pixels inside any box (of one class)."""
    mask = np.zeros(SIZE, bool)
    for label, (x0, y0, x1, y1) in boxes:
        if only in (None, label):
            rows = slice(round(y0 * SIZE[0]), round(y1 * SIZE[0]))
            mask[rows, round(x0 * SIZE[1]) : round(x1 * SIZE[1])] = True
    return mask


def overlap(a: Mask, b: Mask) -> float:
    """Intersection over union."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def scores(pictures: list[NDArray[np.uint8]], layouts: list[Boxes]) -> dict[str, float]:
    """Mean overlap with the right and with other boxes, and how often the right ones win."""
    found: dict[str, float] = {}
    for what, only, segment in (("all", None, dark), ("white", "WBC", purple)):
        rows = [i for i, boxes in enumerate(layouts) if only is None or any(label == only for label, _ in boxes)]
        masks = [union(layouts[i], only) for i in rows]
        seen = [segment(pictures[i]) for i in rows]
        right = [overlap(a, b) for a, b in zip(seen, masks, strict=True)]
        other = [overlap(a, b) for a, b in zip(seen, masks[1:] + masks[:1], strict=True)]
        found[f"{what}_right"], found[f"{what}_shuffled"] = float(np.mean(right)), float(np.mean(other))
        found[f"{what}_right_wins"] = float(np.mean([r > o for r, o in zip(right, other, strict=True)]))
    return {name: round(value, 3) for name, value in found.items()}


def outlined(picture: NDArray[np.uint8], boxes: Boxes) -> NDArray[np.uint8]:
    """The picture with the boxes drawn on it."""
    image = Image.fromarray(picture)
    brush = ImageDraw.Draw(image)
    for label, box in boxes:
        brush.rectangle([v * SIZE[1 - i % 2] for i, v in enumerate(box)], outline=OUTLINES[label])
    return np.asarray(image)


def draw(model: Path, layouts: list[Boxes], options: dict[str, Any]) -> list[NDArray[np.uint8]]:
    """One picture a layout; the seed is its number."""
    pipe, pictures = ldmkit.load(model), []
    for start in range(0, len(layouts), 8):
        some = layouts[start : start + 8]
        inputs = [{"layout": [{"label": label, "box": box} for label, box in boxes]} for boxes in some]
        output = pipe(inputs, seeds=range(start, start + len(some)), **options)
        pictures += [np.asarray(image) for image in output.pil()]
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--number", type=int, default=48)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, help="contact sheet: photograph, drawing, both with boxes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    every = annotated(options.data / "val.json")
    held_out = [every[i * len(every) // options.number] for i in range(options.number)]
    layouts = [boxes for _, boxes in held_out]
    photographs = [
        np.asarray(Image.open(path).convert("RGB").resize(SIZE[::-1], Image.Resampling.LANCZOS)) for path, _ in held_out
    ]
    began = time.process_time()
    drawings = draw(options.model, layouts, {"guidance": options.guidance, "steps": options.steps})
    spent = round(time.process_time() - began, 1)
    result = {"drawings": scores(drawings, layouts), "photographs": scores(photographs, layouts), "cpu_s": spent}
    print(json.dumps(result, indent=2))
    if options.out:
        rows = []
        for photograph, drawing, boxes in list(zip(photographs, drawings, layouts, strict=True))[:12]:
            shown = [photograph, outlined(photograph, boxes), drawing, outlined(drawing, boxes)]
            rows.append(np.concatenate(shown, axis=1))
        left, right = np.concatenate(rows[::2]), np.concatenate(rows[1::2])
        Image.fromarray(np.concatenate([left, right], axis=1)).save(options.out)


if __name__ == "__main__":
    main()
