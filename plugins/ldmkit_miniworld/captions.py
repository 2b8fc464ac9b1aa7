"""Captions: a small grammar with paraphrases, true of the scene, that can be checked by their facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ldmkit_miniworld.dice import Dice
from ldmkit_miniworld.facts import Asked, Facts, Relation
from ldmkit_miniworld.scene import Item, Scene
from ldmkit_miniworld.vocabulary import COLOURED, COLOURS

PLACES = {
    "meadow": ("in a meadow", "on a grassy meadow", "in a field of grass", "on a meadow with flowers"),
    "lake": ("by a lake", "at a lake", "on the shore of a lake", "by the water of a lake"),
    "mountain": (
        "in the mountains",
        "in front of mountains",
        "below snowy peaks",
        "at the foot of a mountain",
    ),
    "desert": ("in a desert", "in the desert", "among sand dunes", "on the sand of a desert"),
    "snow": ("in the snow", "on a snowy field", "in deep snow", "in a winter landscape"),
}
VIEWS = {
    "meadow": ("a meadow", "a grassy meadow", "a field of grass"),
    "lake": ("a lake", "a view of a lake", "a quiet lake"),
    "mountain": ("mountains", "a view of mountains", "snowy mountain peaks"),
    "desert": ("a desert", "a sandy desert", "sand dunes"),
    "snow": ("a snowy landscape", "a winter landscape", "a snowy field"),
}
HOURS = {
    "day": ("by day", "in daylight", "on a bright day", "in the daytime"),
    "dusk": ("at dusk", "in the evening", "at sunset", "under an evening sky"),
    "night": ("at night", "by night", "on a dark night", "under a night sky"),
}
OPENINGS = ("", "", "", "a picture of ", "there _ ", "we see ", "an image of ")
NUMBERS = ("", "a", "two", "three", "four")
OTHER_WORDS = ("one", "and", "with", "to", "is", "are")
NOUNS = {
    "house": (("house", "houses"), ("home", "homes")),
    "tree": (("tree", "trees"),),
    "boat": (("boat", "boats"), ("sailboat", "sailboats")),
    "car": (("car", "cars"),),
    "person": (("person", "people"),),
    "fence": (("fence", "fences"), ("wooden fence", "wooden fences")),
    "balloon": (("balloon", "balloons"), ("hot air balloon", "hot air balloons")),
    "cloud": (("cloud", "clouds"),),
}
CLOTHED = ("in", "in", "dressed in", "wearing")
LIGHTS = {"sun": ("the sun", "the shining sun"), "moon": ("the moon", "the full moon")}
RELATIONS = ("left of", "right of", "above", "below")
CLEAR = 0.08
"""How far apart, in parts of the picture, centres are that a caption calls left, right, above or below."""
LONGEST = 24
"""Words of a caption at most."""


@dataclass(frozen=True, slots=True)
class Group:
    """Objects that a caption names together."""

    asked: Asked
    items: tuple[Item, ...]


def words() -> tuple[str, ...]:
    """Every word that captions may hold, sorted."""
    tables = (PLACES, VIEWS, HOURS, LIGHTS)
    texts = [text for table in tables for choices in table.values() for text in choices]
    texts += [text for forms in NOUNS.values() for form in forms for text in form]
    texts += [*OPENINGS, *NUMBERS, *OTHER_WORDS, *COLOURS, *RELATIONS, *CLOTHED]
    return tuple(sorted({word for text in texts for word in text.split() if word != "_"}))


def captioned(scene: Scene) -> Scene:
    """The scene with its own caption."""
    text, facts = caption(scene, Dice(f"caption/{scene.seed}"))
    return replace(scene, caption=text, caption_facts=facts)


def caption(scene: Scene, dice: Dice) -> tuple[str, Facts]:
    """A caption of at most `LONGEST` words and what it says."""
    for most in (4, 3, 2):
        text, facts = _caption(scene, dice, most)
        if len(text.split()) <= LONGEST:
            break
    return text, facts


def _caption(scene: Scene, dice: Dice, most: int) -> tuple[str, Facts]:
    groups = _groups(scene, dice, most)
    told_label, told_time = dice.chance(0.88) or not groups, dice.chance(0.85)
    place = dice.pick(PLACES[scene.label]) if told_label else ""
    hour = dice.pick(HOURS[scene.time]) if told_time else ""
    relations: tuple[Relation, ...] = ()
    if not groups:
        text = _join(dice.pick(VIEWS[scene.label]), hour)
    else:
        relations = _relation(groups, dice) if dice.chance(0.5) else ()
        groups = groups[:3] if relations else groups
        objects = _phrase(groups, relations, scene, dice)
        text = _order(scene, dice, objects, place, hour, told_label)
    facts = Facts(
        scene.label if told_label else None,
        scene.time if told_time else None,
        tuple(group.asked for group in groups),
        relations,
    )
    return text, facts


def _order(scene: Scene, dice: Dice, objects: str, place: str, hour: str, told_label: bool) -> str:
    style = dice.unit()
    if told_label and style < 0.25:
        return _join(dice.pick(VIEWS[scene.label]), hour, "with", objects)
    if hour and style < 0.4:
        return _join(hour, objects, place)
    if place and style < 0.5:
        return _join(place, objects, hour)
    verb = "are" if objects.split()[0] in NUMBERS[2:] else "is"
    return dice.pick(OPENINGS).replace("_", verb) + _join(objects, place, hour)


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _groups(scene: Scene, dice: Dice, most: int) -> list[Group]:
    """Some or all of the objects, in random order, in groups whose counts are exact."""
    if dice.chance(0.04):
        return []
    kinds = list(dict.fromkeys(item.kind for item in scene.items))
    groups: list[Group] = []
    for kind in kinds:
        items = tuple(item for item in scene.items if item.kind == kind)
        if kind in ("sun", "moon", "cloud") and not dice.chance(0.5):
            continue
        if kind in COLOURED and dice.chance(0.88 if len(items) == 1 else 0.55):
            for colour in dict.fromkeys(item.colour for item in items):
                mine = tuple(item for item in items if item.colour == colour)
                groups.append(Group(Asked(kind, colour, len(mine)), mine))
        else:
            groups.append(Group(Asked(kind, None, len(items)), items))
    shuffled = sorted(groups, key=lambda group: (group.asked.kind in ("sun", "moon"), dice.unit()))
    number = len(groups) if dice.chance(0.75) else dice.integer(1, max(1, len(groups)))
    return shuffled[: min(number, most)]


def _relation(groups: Sequence[Group], dice: Dice) -> tuple[Relation, ...]:
    """One relation between the first two groups that is plain to see, if there is any."""
    if len(groups) < 2:
        return ()
    a, b = (_span(group.items) for group in groups[:2])
    found = []
    if a[1] + CLEAR < b[0]:
        found.append("left of")
    if b[1] + CLEAR < a[0]:
        found.append("right of")
    if groups[0].asked.kind in ("balloon", "cloud") and a[3] + CLEAR < b[2]:
        found.append("above")
    if groups[1].asked.kind in ("balloon", "cloud") and b[3] + CLEAR < a[2]:
        found.append("below")
    return (Relation(dice.pick(found), 0, 1),) if found else ()


def _span(items: Sequence[Item]) -> tuple[float, float, float, float]:
    """Least and greatest x, least and greatest y of the centres."""
    xs = [item.x + item.width / 2 for item in items]
    ys = [item.y + item.height / 2 for item in items]
    return min(xs), max(xs), min(ys), max(ys)


def _phrase(groups: Sequence[Group], relations: Sequence[Relation], scene: Scene, dice: Dice) -> str:
    names = [_name(group.asked, dice) for group in groups]
    if relations:
        word = relations[0].name
        if word in ("left of", "right of") and dice.chance(0.4):
            word = f"to the {word}"
        # The comma ends what the relation is about: "a car left of a tree, and a house".
        return ", and ".join([f"{names[0]} {word} {names[1]}", *names[2:]])
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _name(asked: Asked, dice: Dice) -> str:
    if asked.kind in LIGHTS:
        return dice.pick(LIGHTS[asked.kind])
    noun = dice.pick(NOUNS[asked.kind])[asked.count > 1]
    number = NUMBERS[asked.count] if asked.count > 1 or dice.chance(0.85) else "one"
    if asked.kind == "person" and asked.colour:
        return f"{number} {noun} {dice.pick(CLOTHED)} {asked.colour}"
    return _join(number, asked.colour or "", noun)
