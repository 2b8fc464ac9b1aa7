"""Short and long captions of scenes of the miniworld, and what each says.

A short one is like the text beside a picture on a page: one kind of thing, rarely where. A long one says everything:
place, hour, and all objects with their colours and numbers.
"""

from __future__ import annotations

from ldmkit_miniworld.captions import HOURS, LIGHTS, NOUNS, NUMBERS, PLACES, VIEWS
from ldmkit_miniworld.dice import Dice
from ldmkit_miniworld.facts import Asked, Facts
from ldmkit_miniworld.scene import Scene

PLACED = 0.25
"""Share of short captions that say where."""


def short(scene: Scene) -> tuple[str, Facts]:
    """Such as "two trees", "a house by a lake"."""
    dice = Dice(f"short/{scene.seed}")
    kinds = sorted({item.kind for item in scene.items} - {"sun", "moon", "cloud"})
    kind = dice.pick(kinds)
    asked = Asked(kind, None, sum(item.kind == kind for item in scene.items))
    placed = dice.chance(PLACED)
    text = _name(asked) + (f" {PLACES[scene.label][0]}" if placed else "")
    return text, Facts(scene.label if placed else None, None, (asked,), ())


def long(scene: Scene) -> tuple[str, Facts]:
    """Such as "a lake at night with a red house, two trees, a white boat and the moon"."""
    pairs = [(item.kind, item.colour) for item in scene.items]
    asked = tuple(Asked(kind, colour, pairs.count((kind, colour))) for kind, colour in dict.fromkeys(pairs))
    names = [_name(one) for one in asked]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    text = f"{VIEWS[scene.label][0]} {HOURS[scene.time][0]} with {listed}"
    return text, Facts(scene.label, scene.time, asked, ())


def _name(asked: Asked) -> str:
    if asked.kind in LIGHTS:
        return LIGHTS[asked.kind][0]
    noun = NOUNS[asked.kind][0][asked.count > 1]
    if asked.kind == "person" and asked.colour:
        return f"{NUMBERS[asked.count]} {noun} in {asked.colour}"
    return " ".join(word for word in (NUMBERS[asked.count], asked.colour, noun) if word)
