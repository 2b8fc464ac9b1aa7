"""How well the oracle reads renders that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldmkit_miniworld.boxes import Corners, Found, colour_of, kind_of, overlaps
from ldmkit_miniworld.metrics import accuracy, layout_figures, mean_overlap
from ldmkit_miniworld.oracle import Oracle, Reading, as_tensor
from ldmkit_miniworld.vocabulary import OBJECTS
from ldmkit_miniworld.world import World, WorldPicture

_LOWEST = 0.15


def held_out(oracle: Oracle, split: str, count: int) -> dict[str, float]:
    """Figures of the oracle on renders of a split, by name."""
    world = World(size=64)
    pictures = [world.sample(split, index) for index in range(count)]
    return figures(oracle.read(as_tensor([picture.image for picture in pictures])), pictures)


def figures(reading: Reading, pictures: Sequence[WorldPicture]) -> dict[str, float]:
    """What was read against what is there: shares in [0,1], and `false_objects` a picture."""
    layouts = [layout_of(picture) for picture in pictures]
    layout = layout_figures(layouts, reading.objects)
    hues = [pair for asked, seen in zip(layouts, reading.objects, strict=True) for pair in _hues(asked, seen)]
    return {
        "pictures": float(len(pictures)),
        "semantic_miou": mean_overlap(np.stack([picture.semantic for picture in pictures]), reading.semantic),
        "label_accuracy": accuracy([picture.label for picture in pictures], reading.labels),
        "time_accuracy": accuracy([picture.scene.time for picture in pictures], reading.times),
        "objects_recall50": layout.kinds50,
        "layout_recall50": layout.recall50,
        "layout_recall75": layout.recall75,
        "false_objects": layout.false,
        "colour_accuracy": float(np.mean([a == b for a, b in hues])) if hues else 1.0,
    }


def layout_of(picture: WorldPicture) -> list[tuple[str, Corners]]:
    """The boxes of a picture as (label, corners)."""
    return [(str(item["label"]), _corners(item["box"])) for item in picture.layout]


def _corners(box: Sequence[float]) -> Corners:
    x0, y0, x1, y1 = (float(value) for value in box)
    return x0, y0, x1, y1


def _hues(asked: Sequence[tuple[str, Corners]], seen: Sequence[Found]) -> list[tuple[str, str | None]]:
    """(colour, colour seen) of every coloured object whose box was found."""
    result = []
    for label, box in asked:
        alike = [thing for thing in seen if thing.kind == kind_of(label)]
        colour = colour_of(label)
        if not alike or colour is None:
            continue
        near = overlaps(np.array([box]), np.array([thing.box for thing in alike]))[0]
        if near.max() >= 0.5:
            result.append((colour, alike[int(near.argmax())].colour))
    return result


def tuned(oracle: Oracle, split: str = "validation", count: int = 300) -> Oracle:
    """The oracle with the threshold of each kind at which most objects of a split are found at fewest false ones (the
    best F1 of pairs at IoU 0.5), and with features of unit variance."""
    config, network = oracle.network.config, oracle.network
    network.config = config.model_copy(update={"threshold": (_LOWEST,) * len(OBJECTS), "scale": 1.0})
    world = World(size=64)
    pictures = [world.sample(split, index) for index in range(count)]
    reading = oracle.read(as_tensor([picture.image for picture in pictures]))
    best = []
    for kind in OBJECTS:
        layouts = [[pair for pair in layout_of(p) if kind_of(pair[0]) == kind] for p in pictures]
        things = [[thing for thing in row if thing.kind == kind] for row in reading.objects]
        best.append(max(np.arange(0.2, 0.75, 0.05), key=lambda t: (round(_f1(layouts, things, t), 4), -abs(t - 0.45))))
    scale = float(np.sqrt(reading.features.var(0).mean()))
    chosen = {"threshold": tuple(round(float(value), 2) for value in best), "scale": scale}
    network.config = config.model_copy(update=chosen)
    return oracle


def _f1(layouts: list[list[tuple[str, Corners]]], things: list[list[Found]], threshold: float) -> float:
    kept = [[thing for thing in row if thing.score >= threshold] for row in things]
    asked, seen = sum(map(len, layouts)), sum(map(len, kept))
    right = layout_figures(layouts, kept).kinds50 * asked
    return 2 * right / max(asked + seen, 1)
