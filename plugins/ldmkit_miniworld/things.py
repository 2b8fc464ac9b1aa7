"""How every object is drawn."""

from __future__ import annotations

from collections.abc import Callable

from ldmkit_miniworld.canvas import Canvas, Pen, blend, shade, tinted
from ldmkit_miniworld.dice import Dice
from ldmkit_miniworld.scene import Item, Scene
from ldmkit_miniworld.vocabulary import RGB

PAINTS: dict[str, RGB] = {
    "red": (214, 44, 40),
    "blue": (40, 92, 214),
    "yellow": (252, 204, 30),
    "white": (248, 247, 242),
    "green": (22, 158, 92),
}
"""The colours' paints in daylight."""

_WOOD, _DARK, _GLASS, _LAMP = (124, 82, 48), (48, 44, 52), (186, 222, 240), (255, 216, 110)


class Look:
    """The paints of one object in the light of its scene."""

    def __init__(self, scene: Scene, item: Item):
        self.time = scene.time
        self.place = scene.label
        paint = PAINTS[item.colour] if item.colour else _WOOD
        self.main = self(paint)
        self.light = shade(self.main, 1.25)
        self.dark = shade(self.main, 0.76)
        self.edge = shade(self.main, 0.5)

    def __call__(self, colour: RGB) -> RGB:
        return tinted(colour, self.time)

    def leaves(self, colour: RGB) -> RGB:
        """Trees would vanish in the night without a little light of their own."""
        return shade(self(colour), 1.12) if self.time == "night" else self(colour)


def draw_item(canvas: Canvas, scene: Scene, item: Item, owner: int) -> None:
    """Draw one object and claim its points for `owner`."""
    pen = Pen(canvas, (item.x, item.y, item.width, item.height), owner, item.mirrored)
    _DRAW[item.kind](pen, Look(scene, item), Dice(f"item/{item.seed}"))


def _house(pen: Pen, look: Look, dice: Dice) -> None:
    pen.ground_shadow(0.05, 0.98)
    roof = look(dice.pick(((92, 62, 56), (78, 74, 88), (104, 76, 52))))
    top, eaves = dice.uniform(0.06, 0.12), dice.uniform(0.42, 0.48)
    pen.rect(0.70, 0.02, 0.82, 0.36, shade(roof, 0.8))
    pen.rect(0.06, eaves - 0.02, 0.94, 1.0, look.edge)
    pen.rect(0.09, eaves, 0.62, 0.985, look.main)
    pen.rect(0.62, eaves, 0.91, 0.985, look.dark)
    for row in range(1, 4):
        v = eaves + row * (1 - eaves) / 4
        pen.rect(0.09, v, 0.91, v + 0.012, shade(look.main, 0.68))
    pen.poly([(0.0, eaves), (0.16, top), (0.84, top), (1.0, eaves), (1.0, eaves + 0.03), (0.0, eaves + 0.03)], roof)
    pen.poly([(0.62, eaves), (0.66, top), (0.84, top), (1.0, eaves)], shade(roof, 0.82))
    pen.stroke([(0.16, top), (0.84, top)], shade(roof, 1.25), 0.025)
    glass = _LAMP if look.time == "night" else look((255, 226, 150)) if look.time == "dusk" else _GLASS
    for u in (0.15, 0.68):
        pen.rect(u - 0.015, eaves + 0.12, u + 0.185, eaves + 0.35, look((244, 240, 230)))
        pen.rect(u + 0.01, eaves + 0.145, u + 0.16, eaves + 0.325, glass)
    door = look((96, 58, 36))
    pen.rect(0.405, eaves + 0.20, 0.575, 1.0, look((244, 240, 230)))
    pen.rect(0.43, eaves + 0.235, 0.55, 1.0, door)


def _tree(pen: Pen, look: Look, dice: Dice) -> None:
    if look.place == "desert":
        return _cactus(pen, look)
    if look.place in ("snow", "mountain") or dice.chance(0.2):
        return _pine(pen, look)
    pen.ground_shadow(0.2, 0.8)
    green = look.leaves(dice.pick(((52, 118, 48), (70, 130, 44), (44, 104, 58))))
    pen.poly([(0.43, 0.5), (0.57, 0.5), (0.63, 1.0), (0.37, 1.0)], look((104, 70, 42)))
    pen.poly([(0.51, 0.5), (0.57, 0.5), (0.63, 1.0), (0.53, 1.0)], look((78, 52, 34)))
    dark, light = shade(green, 0.66), shade(green, 1.22)
    blobs = [(0.5, 0.28, 0.34), (0.26, 0.42, 0.26), (0.74, 0.42, 0.26), (0.5, 0.5, 0.28)]
    ratio = pen.width / pen.height
    for u, v, r in blobs:
        pen.oval(u - r, v - r * ratio, u + r, v + r * ratio, dark)
    for u, v, r in blobs:
        r *= 0.82
        pen.oval(u - 0.04 - r, v - 0.02 - r * ratio, u - 0.04 + r, v - 0.02 + r * ratio, green)
    for _ in range(5):
        u, v, r = dice.uniform(0.16, 0.58), dice.uniform(0.1, 0.42), dice.uniform(0.05, 0.09)
        pen.oval(u - r, v - r * ratio, u + r, v + r * ratio, light)


def _pine(pen: Pen, look: Look) -> None:
    pen.ground_shadow(0.2, 0.8)
    snowy = look.place == "snow"
    green, trunk = look.leaves((38, 98, 64)), look((92, 62, 40))
    pen.rect(0.43, 0.82, 0.57, 1.0, trunk)
    for top, bottom, half in ((0.48, 0.88, 0.5), (0.24, 0.64, 0.41), (0.0, 0.38, 0.31)):
        pen.poly([(0.5, top), (0.5 - half, bottom), (0.5, bottom + 0.03), (0.5 + half, bottom)], green)
        pen.poly([(0.5, top), (0.52, bottom + 0.03), (0.5 + half, bottom)], shade(green, 0.68))
        if snowy:
            mid = top + (bottom - top) * 0.62
            points = [(0.5, top), (0.5 - half * 0.62, mid), (0.5 - half * 0.2, mid - 0.05), (0.5, mid)]
            pen.poly([*points, (0.5 + half * 0.3, mid - 0.06), (0.5 + half * 0.5, mid - 0.06)], look((238, 244, 250)))


def _cactus(pen: Pen, look: Look) -> None:
    pen.ground_shadow(0.3, 0.7)
    green = look.leaves((58, 136, 74))
    dark, light = shade(green, 0.66), shade(green, 1.25)
    for u, top, joint in ((0.0, 0.24, 0.60), (0.78, 0.14, 0.50)):
        pen.oval(u, top, u + 0.22, top + 0.16, dark if u else green)
        pen.rect(u, top + 0.08, u + 0.22, joint, dark if u else green)
        pen.oval(u, joint - 0.08, u + 0.22, joint + 0.08, dark if u else green)
        pen.rect(min(u + 0.1, 0.5), joint - 0.07, max(u + 0.12, 0.5), joint + 0.08, dark if u else green)
    pen.oval(0.34, 0.0, 0.66, 0.22, green)
    pen.rect(0.34, 0.1, 0.66, 1.0, green)
    pen.rect(0.55, 0.1, 0.66, 1.0, dark)
    for u in (0.41, 0.50):
        pen.rect(u, 0.1, u + 0.035, 0.97, light)
    pen.rect(0.07, 0.32, 0.105, 0.6, light)


def _boat(pen: Pen, look: Look, dice: Dice) -> None:
    pen.canvas.ellipse((*pen.at(0.0, 0.96), *pen.at(1.0, 1.1)), (10, 30, 60), alpha=0.28)
    wood = look((120, 74, 42))
    pen.rect(0.455, 0.0, 0.50, 0.78, look((90, 62, 44)))
    pen.poly([(0.52, 0.03), (0.97, 0.68), (0.52, 0.68)], look.edge)
    pen.poly([(0.535, 0.08), (0.93, 0.66), (0.535, 0.66)], look.main)
    pen.poly([(0.535, 0.08), (0.66, 0.66), (0.535, 0.66)], look.light)
    pen.poly([(0.44, 0.10), (0.44, 0.68), (0.08, 0.68)], look.edge)
    pen.poly([(0.42, 0.18), (0.42, 0.66), (0.13, 0.66)], look.dark)
    pen.poly([(0.0, 0.74), (1.0, 0.74), (0.84, 0.94), (0.76, 1.0), (0.22, 1.0), (0.12, 0.94)], shade(wood, 0.7))
    pen.poly([(0.03, 0.755), (0.97, 0.755), (0.86, 0.90), (0.12, 0.90)], wood)
    pen.rect(0.04, 0.77, 0.95, 0.815, look.main)
    pen.claim([(0.44, 0.10), (0.52, 0.03), (0.97, 0.68), (1.0, 0.74), (0.0, 0.74), (0.08, 0.68)])


def _car(pen: Pen, look: Look, dice: Dice) -> None:
    pen.ground_shadow(0.05, 0.95, 0.028)
    pen.poly([(0.16, 0.45), (0.28, 0.02), (0.70, 0.0), (0.86, 0.45)], look.edge)
    pen.poly([(0.0, 0.52), (0.05, 0.40), (0.90, 0.38), (1.0, 0.52), (1.0, 0.80), (0.0, 0.82)], look.edge)
    pen.poly([(0.19, 0.46), (0.295, 0.06), (0.69, 0.05), (0.83, 0.46)], look.main)
    pen.poly([(0.02, 0.53), (0.07, 0.44), (0.89, 0.43), (0.98, 0.54), (0.98, 0.76), (0.02, 0.78)], look.main)
    pen.rect(0.02, 0.64, 0.98, 0.77, look.dark)
    glass = look(_GLASS)
    pen.poly([(0.26, 0.43), (0.335, 0.14), (0.48, 0.14), (0.48, 0.43)], glass)
    pen.poly([(0.53, 0.43), (0.53, 0.14), (0.665, 0.14), (0.765, 0.43)], shade(glass, 0.82))
    lamp = _LAMP if look.time != "day" else (250, 240, 200)
    pen.rect(0.92, 0.53, 1.0, 0.64, lamp)
    for u in (0.24, 0.76):
        pen.oval(u - 0.125, 0.58, u + 0.125, 1.0, look(_DARK))
        pen.oval(u - 0.055, 0.70, u + 0.055, 0.88, look((176, 178, 184)))


def _person(pen: Pen, look: Look, dice: Dice) -> None:
    pen.ground_shadow(0.15, 0.85, 0.024)
    skin = look(dice.pick(((244, 204, 172), (214, 160, 118), (150, 100, 68))))
    hair = look(dice.pick(((60, 40, 30), (40, 34, 40), (150, 96, 44))))
    trousers = look((58, 56, 74))
    pen.poly([(0.26, 0.66), (0.48, 0.66), (0.45, 1.0), (0.24, 1.0)], trousers)
    pen.poly([(0.52, 0.66), (0.74, 0.66), (0.76, 1.0), (0.55, 1.0)], shade(trousers, 0.75))
    pen.poly([(0.30, 0.30), (0.70, 0.30), (1.0, 0.62), (0.84, 0.70), (0.16, 0.70), (0.0, 0.62)], look.edge)
    pen.poly([(0.32, 0.32), (0.68, 0.32), (0.94, 0.61), (0.83, 0.66), (0.17, 0.66), (0.06, 0.61)], look.main)
    pen.poly([(0.27, 0.42), (0.73, 0.42), (0.84, 0.78), (0.16, 0.78)], look.edge)
    pen.poly([(0.29, 0.34), (0.71, 0.34), (0.80, 0.765), (0.20, 0.765)], look.main)
    pen.poly([(0.56, 0.34), (0.71, 0.34), (0.80, 0.765), (0.60, 0.765)], look.dark)
    pen.oval(0.24, 0.0, 0.76, 0.30, hair)
    pen.oval(0.30, 0.07, 0.74, 0.32, skin)
    pen.oval(0.0, 0.57, 0.17, 0.68, skin)
    pen.oval(0.83, 0.57, 1.0, 0.68, skin)


def _fence(pen: Pen, look: Look, dice: Dice) -> None:
    wood = look((176, 122, 72))
    dark, light = shade(wood, 0.55), shade(wood, 1.2)
    pen.canvas.polygon(
        [pen.at(0, 0.95), pen.at(1, 0.95), pen.at(0.98, 1.12), pen.at(0.03, 1.12)], (20, 25, 40), alpha=0.2
    )
    for v in (0.22, 0.56):
        pen.rect(0.0, v, 1.0, v + 0.22, dark)
        pen.rect(0.0, v, 1.0, v + 0.15, wood)
    pen.claim([(0.01, 0.06), (0.99, 0.06), (0.99, 1.0), (0.01, 1.0)])
    posts = max(4, round(pen.width / 0.075))
    for k in range(posts):
        u = 0.01 + k * 0.92 / (posts - 1)
        pen.poly([(u, 0.14), (u + 0.03, 0.0), (u + 0.06, 0.14), (u + 0.06, 1.0), (u, 1.0)], dark)
        pen.poly([(u, 0.14), (u + 0.03, 0.0), (u + 0.038, 0.14), (u + 0.038, 1.0), (u, 1.0)], light)


def _balloon(pen: Pen, look: Look, dice: Dice) -> None:
    for u in (0.36, 0.64):
        pen.stroke([(0.5 + (u - 0.5) * 1.7, 0.6), (u, 0.86)], look((110, 84, 60)), 0.03)
    pen.poly([(0.06, 0.48), (0.94, 0.48), (0.62, 0.76), (0.38, 0.76)], look.edge)
    pen.oval(0.0, 0.0, 1.0, 0.74, look.edge)
    pen.poly([(0.10, 0.50), (0.90, 0.50), (0.60, 0.745), (0.40, 0.745)], look.main)
    pen.oval(0.03, 0.02, 0.97, 0.72, look.main)
    pen.oval(0.22, 0.02, 0.78, 0.74, look.dark)
    pen.oval(0.34, 0.02, 0.66, 0.75, look.main)
    pen.oval(0.14, 0.09, 0.34, 0.30, look.light)
    pen.claim([(0.38, 0.7), (0.62, 0.7), (0.62, 0.9), (0.38, 0.9)])
    pen.rect(0.36, 0.84, 0.64, 1.0, look((112, 74, 42)))
    pen.rect(0.36, 0.84, 0.64, 0.88, look((176, 128, 78)))


def _sun(pen: Pen, look: Look, dice: Dice) -> None:
    x, y = pen.at(0.5, 0.5)
    low = look.time == "dusk"
    rim, core = ((255, 150, 60), (255, 196, 96)) if low else ((255, 214, 70), (255, 240, 150))
    pen.canvas.glow(x, y, pen.width * 1.6, blend(core, (255, 255, 255), 0.3), 0.85)
    pen.oval(0.0, 0.0, 1.0, 1.0, rim)
    pen.oval(0.10, 0.10, 0.90, 0.90, core)


def _moon(pen: Pen, look: Look, dice: Dice) -> None:
    x, y = pen.at(0.5, 0.5)
    pen.canvas.glow(x, y, pen.width * 1.5, (190, 200, 240), 0.6)
    pen.oval(0.0, 0.0, 1.0, 1.0, (228, 228, 214))
    pen.oval(0.05, 0.05, 0.90, 0.90, (248, 246, 228))
    for u, v, r in ((0.34, 0.36, 0.12), (0.62, 0.56, 0.14), (0.38, 0.70, 0.08), (0.62, 0.26, 0.06)):
        pen.oval(u - r, v - r, u + r, v + r, (212, 210, 196))


def _cloud(pen: Pen, look: Look, dice: Dice) -> None:
    white = {"day": (255, 255, 255), "dusk": (255, 214, 196), "night": (92, 100, 138)}[look.time]
    under = {"day": (206, 220, 236), "dusk": (214, 146, 156), "night": (62, 68, 104)}[look.time]
    ratio = pen.width / pen.height
    blobs = [(0.5, 0.42, 0.21), (0.27, 0.58, 0.17), (0.75, 0.56, 0.18), (0.14, 0.76, 0.12), (0.87, 0.76, 0.12)]
    for u, v, r in blobs:
        pen.oval(u - r, v - r * ratio, u + r, v + r * ratio, under)
    pen.rect(0.14, 0.62, 0.87, 1.0, under)
    for u, v, r in blobs[:3]:
        r *= 0.88
        pen.oval(u - r, v - 0.05 - r * ratio, u + r, v - 0.05 + r * ratio, white)
    pen.oval(0.08, 0.58, 0.92, 0.90, white)


_DRAW: dict[str, Callable[[Pen, Look, Dice], None]] = {
    "house": _house,
    "tree": _tree,
    "boat": _boat,
    "car": _car,
    "person": _person,
    "fence": _fence,
    "balloon": _balloon,
    "sun": _sun,
    "moon": _moon,
    "cloud": _cloud,
}
