"""What is in a picture, before it is drawn: scene type, time, land and objects, all in parts of the picture's side."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from ldmkit_miniworld.dice import Dice
from ldmkit_miniworld.facts import Facts
from ldmkit_miniworld.vocabulary import CLASSES, COLOURED, COLOURS, TIMES, layout_class

_COUNTS = ((1, 2, 3, 4), (0.24, 0.36, 0.27, 0.13))
_GROUND_KINDS = ("house", "tree", "car", "person", "fence", "boat", "balloon")
_WEIGHTS = {
    "meadow": (2.6, 2.6, 1.8, 2.3, 2.0, 0.0, 1.7),
    "lake": (1.5, 1.8, 1.0, 1.8, 1.0, 5.5, 1.2),
    "mountain": (2.6, 2.4, 1.8, 2.2, 1.6, 0.0, 1.7),
    "desert": (2.0, 2.2, 2.6, 2.2, 1.4, 0.0, 1.9),
    "snow": (2.6, 2.6, 1.8, 2.5, 1.6, 0.0, 1.3),
}
_EXTENT = {
    "house": ((0.27, 0.37), 0.88),
    "tree": ((0.20, 0.27), 1.45),
    "boat": ((0.22, 0.32), 1.05),
    "car": ((0.29, 0.36), 0.58),
    "person": ((0.175, 0.2), 1.78),
    "fence": ((0.40, 0.56), 0.30),
    "balloon": ((0.19, 0.25), 1.32),
    "sun": ((0.16, 0.20), 1.0),
    "moon": ((0.16, 0.19), 1.0),
    "cloud": ((0.28, 0.42), 0.5),
}
"""Width in parts of the picture, and height in parts of the width."""
_FENCE_HEIGHT = (0.14, 0.16)
_ORDER = {"sun": 0, "moon": 0, "cloud": 1, "balloon": 2}
_HIDDEN = 0.16
_TRIES = 24


@dataclass(frozen=True, slots=True)
class Item:
    """One object.

    Args:
        x, y: its left edge and its top, in parts of the picture, y downwards.
        mirrored: drawn facing the other way.
        seed: of its own small details.
    """

    kind: str
    colour: str | None
    x: float
    y: float
    width: float
    height: float
    mirrored: bool
    seed: str

    @property
    def base(self) -> float:
        """Where it stands: what stands lower is nearer."""
        return self.y + self.height

    @property
    def label(self) -> str:
        return layout_class(self.kind, self.colour)


@dataclass(frozen=True, slots=True)
class Land:
    """The lie of the land.

    Args:
        horizon: where the ground (or the water) begins, in parts of the picture from the top.
        shore: of a lake, where the near bank begins; elsewhere the horizon.
        waves: the far skyline above the horizon, as (height, frequency, phase).
        peaks: of mountains, as (x, y, slope to the left, slope to the right).
    """

    horizon: float
    shore: float
    waves: tuple[tuple[float, float, float], ...]
    peaks: tuple[tuple[float, float, float, float], ...] = ()

    def skyline(self, x: float) -> float:
        """The height (0 at the top) where the sky ends."""
        y = self.horizon - sum(a * (1 + math.sin(f * x + p)) for a, f, p in self.waves)
        for px, py, left, right in self.peaks:
            y = min(y, py + (px - x) * left if x < px else py + (x - px) * right)
        return y


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture's content; `items` from far to near, the order in which they are drawn."""

    seed: str
    label: str
    time: str
    land: Land
    items: tuple[Item, ...] = ()
    caption: str = ""
    caption_facts: Facts = field(default_factory=Facts)


def compose(seed: str) -> Scene:
    """The scene of a seed, without its caption."""
    dice = Dice(f"scene/{seed}")
    label = dice.pick(CLASSES)
    time = dice.pick(TIMES, (0.42, 0.29, 0.29))
    scene = Scene(seed, label, time, _land(label, dice))
    items: list[Item] = []
    for kind in _sky_kinds(time, dice):
        _add(scene, kind, items, dice)
    sky = len(items)
    kinds = tuple(k for k in _GROUND_KINDS if not (k == "balloon" and time == "night"))
    wanted = dice.pick(*_COUNTS)
    for _ in range(wanted + 3):
        if len(items) - sky == wanted:
            break
        _add(scene, dice.pick(kinds, [_WEIGHTS[label][_GROUND_KINDS.index(k)] for k in kinds]), items, dice)
    return replace(scene, items=tuple(sorted(items, key=_depth)))


def _depth(item: Item) -> tuple[int, float]:
    return _ORDER.get(item.kind, 3), item.base


def _land(label: str, dice: Dice) -> Land:
    waves = tuple((dice.uniform(0.012, 0.035), dice.uniform(3, 8), dice.uniform(0, 6.28)) for _ in range(2))
    horizon = dice.uniform(0.46, 0.56)
    if label == "lake":
        horizon = dice.uniform(0.40, 0.48)
        return Land(horizon, dice.uniform(0.74, 0.82), waves)
    if label == "desert":
        waves = tuple((a * 0.8, f, p) for a, f, p in waves)
    peaks = []
    if label == "mountain":
        horizon = dice.uniform(0.52, 0.60)
        start, count = dice.uniform(0.02, 0.2), dice.integer(2, 3)
        for k in range(count):
            x = start + (k + dice.uniform(0.1, 0.5)) * 0.9 / count
            y = dice.uniform(0.17, 0.34)
            peaks.append((x, y, dice.uniform(0.75, 1.15), dice.uniform(0.75, 1.15)))
    return Land(horizon, horizon, waves, tuple(peaks))


def _sky_kinds(time: str, dice: Dice) -> list[str]:
    light = {"day": ("sun", 0.6), "dusk": ("sun", 0.7), "night": ("moon", 0.85)}[time]
    kinds = [light[0]] if dice.chance(light[1]) else []
    clouds = dice.pick((0, 1, 2), (0.4, 0.4, 0.2) if time != "night" else (0.65, 0.35, 0.0))
    return kinds + ["cloud"] * clouds


def _add(scene: Scene, kind: str, items: list[Item], dice: Dice) -> None:
    """Put one more object where it hides little and little hides it; nothing where there is no such place."""
    colour = dice.pick(COLOURS) if kind in COLOURED else None
    for _ in range(_TRIES):
        item = _place(scene, kind, colour, f"{scene.seed}/{len(items)}", dice)
        if item is not None and _fits(item, items):
            items.append(item)
            return


def _place(scene: Scene, kind: str, colour: str | None, seed: str, dice: Dice) -> Item | None:
    (low, high), ratio = _EXTENT[kind]
    width, land = dice.uniform(low, high), scene.land
    height = dice.uniform(*_FENCE_HEIGHT) if kind == "fence" else width * ratio
    if kind in ("sun", "moon", "cloud", "balloon"):
        x = dice.uniform(0.02, 0.98 - width)
        limit = min(land.skyline(x + part * width) for part in (0.0, 0.25, 0.5, 0.75, 1.0))
        lowest = limit - height + (0.05 if kind in ("cloud", "balloon") else 0.0)
        if lowest < 0.025:
            return None
        y = dice.uniform(max(0.025, lowest - 0.16) if kind == "sun" and scene.time == "dusk" else 0.025, lowest)
    else:
        top, bottom = (land.horizon + 0.05, land.shore - 0.02) if kind == "boat" else (land.shore + 0.07, 0.975)
        nearness = dice.unit()
        grown = 0.9 + 0.22 * nearness
        width, height = width * grown, height * grown
        x = dice.uniform(0.02, 0.98 - width)
        y = top + (bottom - top) * nearness - height
    return Item(kind, colour, x, y, width, height, dice.chance(0.5), seed)


def _fits(new: Item, items: list[Item]) -> bool:
    """Whether every object, this one included, stays visible but for a small part."""
    together = [*items, new]
    for item in together:
        depth = _depth(item)
        hidden = sum(_overlap(item, other) for other in together if _depth(other) > depth)
        room = 0.02 if item.kind in ("sun", "moon", "cloud", "balloon") else _HIDDEN
        if hidden > room * item.width * item.height:
            return False
    return all(_overlap(new, other) < 0.35 * min(new.width * new.height, other.width * other.height) for other in items)


def _overlap(a: Item, b: Item) -> float:
    wide = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    high = min(a.base, b.base) - max(a.y, b.y)
    return max(0.0, wide) * max(0.0, high)
