"""A captioner that knows what is in pictures of the world: it reads their boxes and their place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from ldmkit import Captioner, Captions, Example, InputError, suggest
from ldmkit_miniworld.captions import CLEAR, CLOTHED, LIGHTS, NOUNS, NUMBERS, PLACES, VIEWS
from ldmkit_miniworld.vocabulary import LAYOUT_CLASSES

_BOX = [0.1, 0.5, 0.3, 0.8]
_LAYOUT = [{"label": "red house", "box": _BOX}, {"label": "tree", "box": [0.6, 0.4, 0.8, 0.8]}]


class Thing(NamedTuple):
    """A labelled box: its label, the centre's x and y, and its area, all in parts of the picture."""

    label: str
    x: float
    y: float
    area: float


class MiniworldCaptioner(Captioner):
    """Captioner `miniworld`: what its records know of a picture, in the words of its captions.

    Short: the largest object. Long: every object with its number and colour, the place, and how neighbours in the list
    stand to one another where that is plain. A record's caption is not read.
    """

    needs: ClassVar[tuple[str, ...]] = ("layout", "label")
    examples: ClassVar[tuple[Example, ...]] = (
        Example(inputs=({"layout": _LAYOUT, "label": "lake"}, {"layout": [], "label": "desert"})),
    )

    def caption(self, picture: Tensor, facts: Mapping[str, Any]) -> Captions:
        for name in self.needs:
            if name not in facts:
                what = f"the record has no {name!r}, which this captioner reads"
                raise InputError("missing-fact", what, where=name, fits="records of miniworld")
        place, things = facts["label"], [_thing(entry) for entry in facts["layout"]]
        if place not in PLACES:
            raise InputError("unknown-class", f"no place {place!r}", where="label", fits=suggest(str(place), PLACES))
        where = PLACES[place][0]
        if not things:
            return Captions(VIEWS[place][0], f"a picture of {VIEWS[place][0]}")
        groups = _groups(things)
        largest = max(groups, key=lambda group: max(thing.area for thing in group))
        return Captions(_name(largest), f"{_listed(groups)} {where}")


def _thing(entry: Mapping[str, Any]) -> Thing:
    label, box = entry.get("label"), entry.get("box")
    if label not in LAYOUT_CLASSES:
        raise InputError(
            "unknown-class", f"no object {label!r}", where="layout", fits=suggest(str(label), LAYOUT_CLASSES)
        )
    x0, y0, x1, y1 = box  # type: ignore[misc]
    return Thing(str(label), (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) * (y1 - y0))


def _groups(things: Sequence[Thing]) -> list[list[Thing]]:
    """Things of a label together, the groups from left to right, the sun and the moon last."""
    found = [[thing for thing in things if thing.label == label] for label in Counter(t.label for t in things)]
    return sorted(found, key=lambda group: (group[0].label in LIGHTS, min(thing.x for thing in group)))


def _name(group: Sequence[Thing]) -> str:
    label = group[0].label
    if label in LIGHTS:
        return LIGHTS[label][0]
    colour, _, kind = label.rpartition(" ")
    noun = NOUNS[kind][0][len(group) > 1]
    number = NUMBERS[len(group)] if len(group) < len(NUMBERS) else str(len(group))
    if kind == "person" and colour:
        return f"{number} {noun} {CLOTHED[0]} {colour}"
    return " ".join(part for part in (number, colour, noun) if part)


def _listed(groups: Sequence[Sequence[Thing]]) -> str:
    """ "a red house left of a tree, and two cars": each group, with its relation to the next where that is plain."""
    parts: list[str] = []
    for index, group in enumerate(groups):
        name, after = _name(group), groups[index + 1] if index + 1 < len(groups) else None
        left = after is not None and max(t.x for t in group) + CLEAR < min(t.x for t in after)
        if left and after is not None and after[0].label not in LIGHTS and group[0].label not in LIGHTS:
            name = f"{name} left of {_name(after)}"
        parts.append(name)
    return ", and ".join(parts)
