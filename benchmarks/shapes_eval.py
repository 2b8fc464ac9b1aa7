"""Does the bundled model draw what it is asked for? Fresh scenes of `examples/shapes.py`, judged by colour.

    python benchmarks/shapes_eval.py [--model shapes] [--out sheet.png]

A pixel has the colour of the nearest of the four paints and the label's own sky. For each box: `colour`, whether
most pixels of its middle have the asked paint; `shape`, which of the four shapes, filled into the box, overlaps best
with the pixels of that paint; `iou`, that overlap for the asked shape; for the boxes asked for and for those of
another scene. For each picture: whether its sky is nearest to that of the asked label. Also the same without the
label or without the boxes, where the other condition must hold alone; and for the pictures of the world themselves.
"""

from __future__ import annotations

import argparse
import json
import random
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
from shapes import COLOURS, LABELS, SHAPES, SIDE, Scene, draw, fill, scene

Picture = NDArray[np.uint8]


def paints(picture: Picture) -> NDArray[np.int64]:
    """Which paint each pixel has: (64,64), the number of a colour, or 4 for any sky."""
    rows = np.linspace(0, 1, SIDE)[:, None, None, None]
    tops, bottoms = (np.array([sky[i] for sky in LABELS.values()], float) for i in (0, 1))
    skies = np.broadcast_to(tops + (bottoms - tops) * rows, (SIDE, SIDE, len(LABELS), 3))
    flat = np.broadcast_to(np.array(list(COLOURS.values()), float), (SIDE, SIDE, len(COLOURS), 3))
    distance = np.square(picture[:, :, None] - np.concatenate([flat, skies], 2)).sum(-1)
    return np.minimum(distance.argmin(-1), len(COLOURS))


def stencil(shape: str, box: Any) -> NDArray[np.bool_]:
    """The pixels of a shape that fills a box."""
    mask = Image.new("L", (SIDE * 4, SIDE * 4))
    fill(ImageDraw.Draw(mask), shape, [v * SIDE * 4 for v in box], 255)
    return np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BOX)) > 127


def judge_boxes(picture: Picture, layout: list[dict[str, Any]]) -> list[tuple[float, float, float]]:
    """(colour right, shape right, overlap with the asked shape) of each box."""
    found, result = paints(picture), []
    for item in layout:
        colour, shape = item["label"].split()
        number, box = list(COLOURS).index(colour), item["box"]
        x0, y0, x1, y1 = (round(v * SIDE) for v in box)
        w, h = x1 - x0, y1 - y0
        # The lower middle is inside every shape: a star has a notch only below it.
        middle = found[y0 + round(0.4 * h) : y0 + round(0.65 * h), x0 + round(0.35 * w) : x0 + round(0.65 * w)]
        area = np.zeros((SIDE, SIDE), bool)
        area[max(y0 - 2, 0) : y1 + 2, max(x0 - 2, 0) : x1 + 2] = True
        painted = (found == number) & area
        overlaps = {s: (painted & m).sum() / (painted | m).sum() for s in SHAPES for m in [stencil(s, box)]}
        best = max(overlaps, key=lambda s: overlaps[s])
        result.append((float((middle == number).mean() > 0.5), float(painted.any() and best == shape), overlaps[shape]))
    return result


def judge_label(picture: Picture, layout: list[dict[str, Any]]) -> str:
    """The label whose sky is nearest to the picture outside the boxes (none: everywhere), by medians of rows."""
    outside = np.ones((SIDE, SIDE), bool)
    for item in layout:
        x0, y0, x1, y1 = (round(v * SIDE) for v in item["box"])
        outside[y0:y1, x0:x1] = False
    rows = [i for i in range(SIDE) if outside[i].any()]
    medians = np.array([np.median(picture[i][outside[i]], axis=0) for i in rows])
    share = np.linspace(0, 1, SIDE)[rows][:, None]
    distance = {
        label: np.abs(medians - (np.array(top) + (np.array(bottom) - np.array(top)) * share)).mean()
        for label, (top, bottom) in LABELS.items()
    }
    return min(distance, key=lambda label: float(distance[label]))


def judge(pictures: list[Picture], scenes: list[Scene]) -> dict[str, float]:
    """Shares over all boxes and pictures."""
    right = [row for p, s in zip(pictures, scenes, strict=True) for row in judge_boxes(p, s["layout"])]
    moved = scenes[1:] + scenes[:1]
    other = [row for p, s in zip(pictures, moved, strict=True) for row in judge_boxes(p, s["layout"])]
    label = [judge_label(p, s["layout"]) == s["label"] for p, s in zip(pictures, scenes, strict=True)]
    names = ("colour", "shape", "iou")
    found = {f"{n}_right": float(np.mean(v)) for n, v in zip(names, zip(*right, strict=True), strict=True)}
    found |= {f"{n}_shuffled": float(np.mean(v)) for n, v in zip(names, zip(*other, strict=True), strict=True)}
    return {name: round(value, 3) for name, value in {**found, "label": float(np.mean(label))}.items()}


def sample(pipe: ldmkit.Pipeline, scenes: list[Scene], keep: tuple[str, ...], options: dict[str, Any]) -> list[Picture]:
    """One picture a scene, of some of its conditions; the seed is its number."""
    pictures: list[Picture] = []
    for start in range(0, len(scenes), 16):
        some = [{name: s[name] for name in keep} for s in scenes[start : start + 16]]
        output = pipe(some, seeds=range(start, start + len(some)), **options)
        pictures += [np.asarray(image) for image in output.pil()]
    return pictures


def poster(pipe: ldmkit.Pipeline, scenes: list[Scene]) -> Image.Image:
    """Layouts as outlines, and a picture of each by day, at dusk and at night, enlarged; two layouts a row."""
    rows = []
    for item in scenes:
        plan = Image.new("RGB", (4 * SIDE, 4 * SIDE), "white")
        for box in item["layout"]:
            colour, shape = box["label"].split()
            corners = [v * 4 * SIDE for v in box["box"]]
            ImageDraw.Draw(plan).rectangle(corners, outline=COLOURS[colour], width=5)
            ImageDraw.Draw(plan).text((corners[0] + 8, corners[1] + 6), f"{colour}\n{shape}", "black", font_size=22)
        asked = [{"layout": item["layout"], "label": label} for label in LABELS]
        drawn = pipe(asked, seeds=range(len(asked))).pil()
        large = [p.resize((7 * SIDE // 4, 7 * SIDE // 4), Image.Resampling.LANCZOS) for p in (plan, *drawn)]
        rows.append(np.concatenate([np.asarray(p) for p in large], axis=1))
    return Image.fromarray(np.concatenate([np.concatenate(rows[::2]), np.concatenate(rows[1::2])], axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--number", type=int, default=128)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sampler")
    parser.add_argument("--both-only", action="store_true", help="leave out the runs with one condition")
    parser.add_argument("--out", type=Path, help="contact sheet: pairs of the world's picture and the model's")
    parser.add_argument("--poster", type=Path, help="layouts and what is drawn from them, as in the README")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(1)
    scenes = [scene(rng) for _ in range(options.number)]
    pipe, world = ldmkit.load(options.model), [draw(s) for s in scenes]
    how = {"guidance": options.guidance, "steps": options.steps, "sampler": options.sampler}
    began = time.process_time()
    both = sample(pipe, scenes, ("label", "layout"), how)
    result: dict[str, Any] = {"cpu_s": round(time.process_time() - began, 1), "both": judge(both, scenes)}
    if not options.both_only:
        result["layout_alone"] = judge(sample(pipe, scenes, ("layout",), how), scenes)
        bare = sample(pipe, scenes, ("label",), how)
        alone = [judge_label(picture, []) == s["label"] for picture, s in zip(bare, scenes, strict=True)]
        result |= {"label_alone": round(float(np.mean(alone)), 3), "world": judge(world, scenes)}
    print(json.dumps(result, indent=2))
    if options.out:
        pairs = [np.concatenate([a, b]) for a, b in zip(world[:20], both[:20], strict=True)]
        sheet = np.concatenate([np.concatenate(pairs[i : i + 10], axis=1) for i in (0, 10)])
        Image.fromarray(sheet).save(options.out)
    if options.poster:
        boxes = json.loads((Path(__file__).parents[1] / "examples" / "boxes.json").read_text())
        fullest = sorted(scenes, key=lambda s: -len(s["layout"]))
        poster(pipe, [{"layout": boxes}, *fullest[:3]]).save(options.poster, optimize=True)


if __name__ == "__main__":
    main()
