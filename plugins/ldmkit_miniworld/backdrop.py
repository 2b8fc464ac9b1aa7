"""Sky and land, behind the objects."""

from __future__ import annotations

import math

from ldmkit_miniworld.canvas import Canvas, Points, blend, shade
from ldmkit_miniworld.dice import Dice
from ldmkit_miniworld.scene import Scene
from ldmkit_miniworld.vocabulary import RGB, SEMANTIC

SKY, MOUNTAIN, GRASS, SAND, SNOW, WATER = (
    SEMANTIC.index(name) for name in ("sky", "mountain", "grass", "sand", "snow", "water")
)
_SKIES: dict[str, tuple[RGB, RGB]] = {
    "day": ((78, 156, 232), (206, 232, 248)),
    "dusk": ((92, 72, 140), (255, 186, 126)),
    "night": ((12, 16, 48), (46, 58, 112)),
}
_TONES: dict[str, dict[str, tuple[RGB, RGB]]] = {
    "grass": {
        "day": ((150, 200, 92), (84, 150, 54)),
        "dusk": ((150, 138, 80), (84, 92, 56)),
        "night": ((36, 66, 70), (22, 42, 46)),
    },
    "sand": {
        "day": ((240, 212, 154), (220, 172, 104)),
        "dusk": ((206, 128, 92), (148, 84, 74)),
        "night": ((92, 82, 100), (62, 54, 76)),
    },
    "snow": {
        "day": ((236, 244, 252), (204, 222, 240)),
        "dusk": ((232, 206, 222), (172, 158, 198)),
        "night": ((122, 138, 180), (88, 102, 148)),
    },
    "water": {
        "day": ((138, 200, 236), (44, 116, 190)),
        "dusk": ((226, 142, 126), (84, 66, 122)),
        "night": ((48, 64, 118), (16, 26, 66)),
    },
    "mountain": {
        "day": ((146, 150, 172), (104, 112, 128)),
        "dusk": ((150, 106, 130), (98, 76, 96)),
        "night": ((52, 56, 90), (34, 38, 64)),
    },
}
"""The colours of the land by time, far and near."""

_GROUND = {"meadow": "grass", "lake": "grass", "mountain": "grass", "desert": "sand", "snow": "snow"}
_STEPS = 16


def draw_backdrop(canvas: Canvas, scene: Scene) -> None:
    """Sky, far land and near land; claims the points for the labels of `SEMANTIC`."""
    dice = Dice(f"backdrop/{scene.seed}")
    top, low = _SKIES[scene.time]
    horizon = scene.land.horizon
    canvas.gradient([(0, 0), (1, 0), (1, 1), (0, 1)], [(0, top), (horizon, low)], SKY)
    if scene.time == "night":
        _stars(canvas, scene, dice)


def draw_land(canvas: Canvas, scene: Scene) -> None:
    """Everything below the sky; after the sun and the moon, which it may hide in part."""
    dice = Dice(f"land/{scene.seed}")
    land, ground = scene.land, _GROUND[scene.label]
    far, near = _TONES[ground][scene.time]
    owner = SEMANTIC.index(ground)
    haze = _SKIES[scene.time][1]
    if scene.label == "mountain":
        _mountains(canvas, scene, dice)
    else:
        _hills(canvas, scene, blend(far, haze, 0.35), owner)
    if scene.label == "lake":
        _water(canvas, scene, dice)
    edge = _edge(land.shore, dice, 0.014)
    canvas.gradient(edge, [(land.shore - 0.03, far), (1.0, near)], owner)
    {"grass": _grass, "sand": _dunes, "snow": _drifts}[ground](canvas, scene, dice)


def _edge(y: float, dice: Dice, height: float) -> Points:
    """A wavy line across the picture, closed along its bottom."""
    f, p, g, q = dice.uniform(4, 8), dice.uniform(0, 6.28), dice.uniform(9, 14), dice.uniform(0, 6.28)
    line = [
        (k / _STEPS, y + height * (math.sin(f * k / _STEPS + p) + 0.4 * math.sin(g * k / _STEPS + q)))
        for k in range(_STEPS + 1)
    ]
    return [*line, (1, 1), (0, 1)]


def _stars(canvas: Canvas, scene: Scene, dice: Dice) -> None:
    for _ in range(26):
        x, y = dice.unit(), dice.unit() * scene.land.horizon
        r = dice.uniform(0.003, 0.007)
        canvas.ellipse((x - r, y - r, x + r, y + r), blend((120, 130, 170), (255, 255, 240), dice.unit()))


def _hills(canvas: Canvas, scene: Scene, colour: RGB, owner: int) -> None:
    land = scene.land
    line = [(k / _STEPS, land.skyline(k / _STEPS)) for k in range(_STEPS + 1)]
    canvas.polygon([*line, (1, land.horizon + 0.08), (0, land.horizon + 0.08)], colour, owner)
    lower = [(x, land.horizon - 0.55 * (land.horizon - land.skyline(1 - x))) for x, _ in line]
    canvas.polygon([*lower, (1, land.horizon + 0.08), (0, land.horizon + 0.08)], shade(colour, 0.9), owner)


def _mountains(canvas: Canvas, scene: Scene, dice: Dice) -> None:
    light, dark = _TONES["mountain"][scene.time]
    cap = _TONES["snow"][scene.time][0]
    base = scene.land.horizon + 0.06
    for x, y, left, right in sorted(scene.land.peaks, key=lambda peak: peak[1]):
        foot_left, foot_right = x - (base - y) / left, x + (base - y) / right
        canvas.polygon([(x, y), (foot_right, base), (foot_left, base)], light, MOUNTAIN)
        ridge = [(x + dice.uniform(-0.02, 0.03) + 0.01 * k, y + (base - y) * k / 4) for k in range(1, 5)]
        canvas.polygon([(x, y), (foot_right, base), *reversed(ridge)], dark, MOUNTAIN)
        deep = (base - y) * dice.uniform(0.3, 0.4)
        teeth = [
            (x + deep / right * (1 - t) - deep / left * t, y + deep * (1.0 if k % 2 else 0.66))
            for k, t in enumerate((0.12, 0.3, 0.48, 0.66, 0.86))
        ]
        outline = [(x, y), (x + deep / right * 0.95, y + deep * 0.95), *teeth, (x - deep / left * 0.9, y + deep * 0.9)]
        canvas.polygon(outline, cap, MOUNTAIN)
        half = [(x, y), (x + deep / right * 0.95, y + deep * 0.95), teeth[0], teeth[1], (x + 0.012, y + deep * 0.5)]
        canvas.polygon(half, shade(cap, 0.82), MOUNTAIN)
    waves = scene.land.waves
    line = [
        (k / _STEPS, scene.land.horizon - 0.5 * sum(a * (1 + math.sin(f * k / _STEPS + p)) for a, f, p in waves))
        for k in range(_STEPS + 1)
    ]
    far = _TONES["grass"][scene.time][0]
    canvas.polygon([*line, (1, base + 0.03), (0, base + 0.03)], shade(far, 0.8), GRASS)


def _water(canvas: Canvas, scene: Scene, dice: Dice) -> None:
    land = scene.land
    far, near = _TONES["water"][scene.time]
    canvas.gradient([(0, land.horizon), (1, land.horizon), (1, 1), (0, 1)], [(land.horizon, far), (0.85, near)], WATER)
    bright = shade(far, 1.35)
    for _ in range(16):
        y = land.horizon + (land.shore - land.horizon) * dice.unit() + 0.01
        x, wide = dice.unit(), dice.uniform(0.05, 0.14)
        canvas.line([(x, y), (x + wide, y)], bright if dice.chance(0.6) else shade(near, 0.85), 0.008, alpha=0.6)
    for item in scene.items:
        if item.kind in ("sun", "moon"):
            _glitter(canvas, scene, item.x + item.width / 2, dice)


def _glitter(canvas: Canvas, scene: Scene, x: float, dice: Dice) -> None:
    """The light of the sun or the moon on the water, below it."""
    colour = {"day": (255, 250, 220), "dusk": (255, 214, 140), "night": (226, 230, 240)}[scene.time]
    land = scene.land
    for k in range(9):
        y = land.horizon + 0.012 + (land.shore - land.horizon) * k / 9
        half = 0.03 + 0.05 * dice.unit()
        shift = dice.uniform(-0.02, 0.02)
        canvas.line([(x - half + shift, y), (x + half + shift, y)], colour, 0.010, alpha=0.65)


def _grass(canvas: Canvas, scene: Scene, dice: Dice) -> None:
    far, near = _TONES["grass"][scene.time]
    top = scene.land.shore + 0.03
    for _ in range(34):
        depth = dice.unit()
        x, y = dice.unit(), top + (1.02 - top) * depth
        tall = 0.012 + 0.022 * depth
        tone = blend(far, near, depth)
        colour = shade(tone, 0.78) if dice.chance(0.55) else shade(tone, 1.22)
        canvas.line([(x, y), (x + dice.uniform(-0.3, 0.3) * tall, y - tall)], colour, 0.008)
        canvas.line([(x + 0.012, y), (x + 0.012 + 0.5 * tall, y - 0.8 * tall)], colour, 0.008)
    if scene.label != "meadow":
        return
    petals = ((255, 250, 240), (255, 222, 80), (240, 120, 150))
    night = scene.time == "night"
    for _ in range(16):
        depth = dice.unit()
        x, y, r = dice.unit(), top + (1 - top) * depth, 0.006 + 0.006 * depth
        petal = dice.pick(petals)
        canvas.ellipse((x - r, y - r, x + r, y + r), blend(petal, near, 0.6) if night else petal)


def _dunes(canvas: Canvas, scene: Scene, dice: Dice) -> None:
    far, near = _TONES["sand"][scene.time]
    top = scene.land.shore
    for k in range(3):
        y = top + (1 - top) * (0.12 + 0.3 * k + 0.1 * dice.unit())
        crest, long = dice.unit(), dice.uniform(0.35, 0.6)
        tone = blend(far, near, (y - top) / (1 - top))
        sweep = [(crest + long * (t / 8 - 0.5), y - 0.05 * math.sin(math.pi * t / 8)) for t in range(9)]
        canvas.polygon([*sweep, (crest + long * 0.25, y + 0.045)], shade(tone, 0.88), SAND)
        canvas.line(sweep, shade(tone, 1.45), 0.008)
    for _ in range(12):
        depth = dice.unit()
        x, y, wide = dice.unit(), top + 0.04 + (0.96 - top) * depth, dice.uniform(0.04, 0.1)
        canvas.line([(x, y), (x + wide / 2, y - 0.006), (x + wide, y)], shade(near, 0.86), 0.007, alpha=0.7)


def _drifts(canvas: Canvas, scene: Scene, dice: Dice) -> None:
    far, near = _TONES["snow"][scene.time]
    top = scene.land.shore
    for k in range(4):
        y = top + (1 - top) * (0.1 + 0.25 * k + 0.08 * dice.unit())
        middle, long = dice.unit(), dice.uniform(0.3, 0.6)
        tone = blend(far, near, (y - top) / (1 - top))
        sweep = [(middle + long * (t / 8 - 0.5), y - 0.03 * math.sin(math.pi * t / 8)) for t in range(9)]
        canvas.polygon([*sweep, (middle, y + 0.02)], shade(tone, 0.93), SNOW, alpha=0.8)
        canvas.line(sweep, shade(tone, 1.6), 0.008)
    for _ in range(14):
        x, y = dice.unit(), top + 0.03 + (0.97 - top) * dice.unit()
        canvas.ellipse((x - 0.005, y - 0.005, x + 0.005, y + 0.005), shade(far, 1.7))
