"""The world's conditions as pictures, in the world's own colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldmkit_drawing.drawings import boxes, card, label_map

from ldmkit_miniworld.boxes import colour_of, kind_of
from ldmkit_miniworld.vocabulary import LAYOUT_CLASSES, PALETTE, RGB, SEMANTIC
from ldmkit_miniworld.world import WorldPicture

if TYPE_CHECKING:
    from ldmkit_drawing.sheets import Drawing

PAINTS: Mapping[str, RGB] = {
    "red": (200, 45, 40),
    "blue": (45, 90, 190),
    "yellow": (225, 175, 30),
    "white": (150, 155, 165),
    "green": (50, 140, 60),
}


def box_ink(label: str) -> RGB:
    """The colour in which the box of a layout's label is drawn: that of the object."""
    colour = colour_of(label)
    red, green, blue = PALETTE[SEMANTIC.index(kind_of(label))]
    return PAINTS[colour] if colour else (red * 3 // 4, green * 3 // 4, blue * 3 // 4)


INKS: Mapping[str, RGB] = {label: box_ink(label) for label in LAYOUT_CLASSES}


def shown(name: str, value: Any) -> Drawing:
    """What one of the world's conditions looks like.

    Args:
        name: `text`, `label`, `layout` or `semantic`.
        value: as in `asking.inputs_of`.
    """
    if name == "layout":
        return boxes(value, inks=INKS)
    if name == "semantic":
        return label_map(value, SEMANTIC, palette=PALETTE)
    return card(str(value))


def condition(picture: WorldPicture, name: str) -> Drawing:
    """What a condition of a picture of the world looks like."""
    from ldmkit_miniworld.asking import inputs_of

    return shown(name, inputs_of(picture, (name,))[name])
