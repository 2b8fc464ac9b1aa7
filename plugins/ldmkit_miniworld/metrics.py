"""How much of what was asked for is in the pictures: text, class, layout and map, each by its own count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ldmkit import InputError, Value
from ldmkit_miniworld.boxes import Corners, Found, paired
from ldmkit_miniworld.facts import Asked, Facts, Relation
from ldmkit_miniworld.vocabulary import SEMANTIC


class TextFigures(Value):
    """
    Args:
        objects: of the objects that the captions ask for, the share that is there (by kind and number).
        colours: of the objects asked for in a colour, the share that is there in that colour.
        false: objects too many of what is named, one picture's mean: red houses where the caption says so, else
            houses. What a caption does not name is free.
        relations: of the relations between two objects, the share that holds; None: no caption states one.
        label, time: of the scenes and times that captions name, the share that is right; None: none names one.
    """

    objects: float
    colours: float | None
    false: float
    relations: float | None
    label: float | None
    time: float | None


class LayoutFigures(Value):
    """
    Args:
        recall50, recall75: of the boxes asked for, the share that holds an object of the box's label (the colour
            included), overlapping it by at least 0.5 or 0.75, one object each.
        kinds50: the same at 0.5 whatever the colour.
        false: objects that no box asked for (no box of their kind overlaps by 0.5), one picture's mean.
    """

    recall50: float
    recall75: float
    kinds50: float
    false: float


def text_figures(
    facts: Sequence[Facts],
    found: Sequence[Sequence[Found]],
    labels: Sequence[str],
    times: Sequence[str],
) -> TextFigures:
    """What captions ask for against what is seen, picture by picture.

    Raises:
        InputError: `metrics-length`: not as many of one as of the others.
    """
    _same(facts=facts, found=found, labels=labels, times=times)
    total: Counter[str] = Counter()
    for asked, seen, label, time in zip(facts, found, labels, times, strict=True):
        total.update(objects_found(asked.objects, seen))
        for relation in asked.relations:
            total.update({"relations": 1, "held": int(holds(relation, asked.objects, seen))})
        for name, want, got in (("label", asked.label, label), ("time", asked.time, time)):
            if want is not None:
                total.update({name: 1, f"{name}_right": int(want == got)})
    return TextFigures(
        objects=_share(total, "found", "objects") or 0.0,
        colours=_share(total, "coloured_found", "coloured"),
        false=total["false"] / max(len(facts), 1),
        relations=_share(total, "held", "relations"),
        label=_share(total, "label_right", "label"),
        time=_share(total, "time_right", "time"),
    )


def objects_found(asked: Sequence[Asked], seen: Sequence[Found]) -> dict[str, int]:
    """Counts of one picture: `objects` asked for and `found`, `coloured` ones asked for and `coloured_found`, and
    `false` ones: more than asked for, of what is named."""
    kinds: Counter[str] = Counter()
    hues: Counter[tuple[str, str]] = Counter()
    for thing in asked:
        kinds[thing.kind] += thing.count
        if thing.colour is not None:
            hues[thing.kind, thing.colour] += thing.count
    there = Counter(thing.kind for thing in seen)
    painted = Counter((thing.kind, thing.colour) for thing in seen)
    plain = {thing.kind: thing.count for thing in asked if thing.colour is None}
    false = sum(max(0, there[kind] - count) for kind, count in plain.items())
    false += sum(max(0, painted[pair] - count) for pair, count in hues.items())
    return {
        "objects": kinds.total(),
        "found": sum(min(count, there[kind]) for kind, count in kinds.items()),
        "coloured": hues.total(),
        "coloured_found": sum(min(count, painted[pair]) for pair, count in hues.items()),
        "false": false,
    }


def holds(relation: Relation, asked: Sequence[Asked], seen: Sequence[Found]) -> bool:
    """Whether some object seen as the subject stands to some other seen as the target as the relation says."""
    subjects, targets = (_alike(asked[i], seen) for i in (relation.subject, relation.target))
    return any(a is not b and stands(relation.name, a.box, b.box) for a in subjects for b in targets)


def _alike(asked: Asked, seen: Sequence[Found]) -> list[Found]:
    return [t for t in seen if t.kind == asked.kind and asked.colour in (None, t.colour)]


def stands(name: str, subject: Corners, target: Corners) -> bool:
    """Whether the middle of one box lies left of, right of, above or below that of another.

    Raises:
        InputError: `relation`: another word.
    """
    (ax, ay), (bx, by) = (((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for box in (subject, target))
    signs = {"left of": bx - ax, "right of": ax - bx, "above": by - ay, "below": ay - by}
    if name not in signs:
        raise InputError("relation", f"no relation {name!r}", fits=", ".join(signs))
    return signs[name] > 0


def accuracy(asked: Sequence[str], seen: Sequence[str]) -> float:
    """Share of equal names.

    Raises:
        InputError: `metrics-length`.
    """
    _same(asked=asked, seen=seen)
    return float(np.mean([a == b for a, b in zip(asked, seen, strict=True)]))


def layout_figures(layouts: Sequence[Sequence[tuple[str, Corners]]], found: Sequence[Sequence[Found]]) -> LayoutFigures:
    """Boxes asked for, as (label, corners), against objects seen, picture by picture.

    Raises:
        InputError: `metrics-length`.
    """
    _same(layouts=layouts, found=found)
    total: Counter[str] = Counter()
    for layout, seen in zip(layouts, found, strict=True):
        labels, boxes = [label for label, _ in layout], [box for _, box in layout]
        kinds = paired(labels, boxes, seen, 0.5, colours=False)
        total.update(
            {
                "boxes": len(layout),
                "50": paired(labels, boxes, seen, 0.5),
                "75": paired(labels, boxes, seen, 0.75),
                "kinds": kinds,
                "false": len(seen) - kinds,
            }
        )
    recall = {name: _share(total, name, "boxes") or 0.0 for name in ("50", "75", "kinds")}
    false = total["false"] / max(len(layouts), 1)
    return LayoutFigures(recall50=recall["50"], recall75=recall["75"], kinds50=recall["kinds"], false=false)


def confusion(asked: np.ndarray, seen: np.ndarray, labels: int = len(SEMANTIC)) -> np.ndarray:
    """(labels, labels) counts of pixels: row the label asked for, column the one seen.

    Raises:
        InputError: `map-shape`: maps of different shapes; `map-labels`: labels that do not exist.
    """
    a, b = np.asarray(asked), np.asarray(seen)
    if a.shape != b.shape:
        raise InputError("map-shape", f"maps of shapes {a.shape} and {b.shape}")
    if a.size and max(int(a.max()), int(b.max())) >= labels:
        what = f"labels up to {max(int(a.max()), int(b.max()))}"
        raise InputError("map-labels", what, fits=f"0 to {labels - 1}")
    flat = a.astype(np.int64).ravel() * labels + b.astype(np.int64).ravel()
    return np.bincount(flat, minlength=labels * labels).reshape(labels, labels)


def label_overlaps(counts: np.ndarray) -> np.ndarray:
    """Intersection over union of each label from a confusion matrix; NaN for a label that was not asked for."""
    both = np.diag(counts).astype(float)
    either = counts.sum(0) + counts.sum(1) - both
    return np.where(counts.sum(1) > 0, both / np.maximum(either, 1), np.nan)


def mean_overlap(asked: np.ndarray, seen: np.ndarray) -> float:
    """Mean intersection over union, pixels counted over all maps (N,H,W), over the labels that were asked for."""
    return float(np.nanmean(label_overlaps(confusion(asked, seen))))


def _share(total: Counter[str], part: str, whole: str) -> float | None:
    return total[part] / total[whole] if total[whole] else None


def _same(**lists: Sequence[object]) -> None:
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) != 1 or not next(iter(lengths.values())):
        shown = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise InputError("metrics-length", f"pictures do not pair up: {shown}", fits="one or more, as many of each")
