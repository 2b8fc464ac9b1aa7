"""The names of the world: scenes, times, objects, colours, and the labels of layouts and maps, in their fixed order."""

from __future__ import annotations

from typing import TypeAlias

RGB: TypeAlias = tuple[int, int, int]

CLASSES = ("meadow", "lake", "mountain", "desert", "snow")
"""Scene types: the class of a picture."""

TIMES = ("day", "dusk", "night")

OBJECTS = ("house", "tree", "boat", "car", "person", "fence", "balloon", "sun", "moon", "cloud")

COLOURS = ("red", "blue", "yellow", "white", "green")

COLOURED = ("house", "boat", "car", "person", "balloon")
"""Objects that have one of `COLOURS`; the others look alike everywhere."""

SKY_OBJECTS = ("sun", "moon", "cloud")

LAYOUT_CLASSES = (
    *(f"{colour} {kind}" for kind in COLOURED for colour in COLOURS),
    *(kind for kind in OBJECTS if kind not in COLOURED),
)
"""Labels of boxes: colour and object where the object has a colour, else the object."""

SEMANTIC = ("sky", "mountain", "grass", "sand", "snow", "water", *OBJECTS)
"""Labels of maps: label i of a map is SEMANTIC[i]."""

PALETTE: tuple[RGB, ...] = (
    (135, 190, 235),
    (120, 105, 120),
    (110, 175, 80),
    (225, 190, 120),
    (232, 240, 248),
    (45, 105, 190),
    (200, 70, 50),
    (30, 100, 45),
    (150, 90, 40),
    (240, 70, 200),
    (250, 150, 60),
    (120, 75, 30),
    (150, 60, 190),
    (255, 230, 60),
    (255, 255, 190),
    (190, 200, 210),
)
"""A colour for every label of `SEMANTIC`, for showing maps and for reading them from palette pictures."""


def layout_class(kind: str, colour: str | None) -> str:
    """The label of a box: one of `LAYOUT_CLASSES`."""
    return f"{colour} {kind}" if colour else kind
