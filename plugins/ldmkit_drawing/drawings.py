"""Conditions as pictures, for contact sheets: named boxes, colour-coded maps with a legend, words, masks.

Every function returns a `Drawing`: called with (width, height) in pixels, it draws itself at that size.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ldmkit import Conditioner, read_label_map
from ldmkit_drawing.sheets import EMPTY, FAINT, INK, PAPER, Content, Drawing, font, picture, words, wrap

Colour: TypeAlias = tuple[int, int, int]
CARD = (247, 246, 241)
GOLDEN = 0.61803398875
"""Steps of this share around the colour circle never come close to one another soon."""


class NamedBox(NamedTuple):
    """A label and (x0, y0, x1, y1) relative to the picture."""

    label: str
    box: tuple[float, float, float, float]


def colour(index: int) -> Colour:
    """The colour of a class: distinct for neighbours, the same in every sheet."""
    hue = (0.58 + index * GOLDEN) % 1.0
    light = (0.50, 0.62, 0.38)[index % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, light, 0.62)
    return round(red * 255), round(green * 255), round(blue * 255)


def named_boxes(layout: Any, names: Sequence[str] = ()) -> list[NamedBox]:
    """Boxes of a layout: parsed by a layout conditioner, or as datasets give it (dicts of `label` and `box`)."""
    objects = layout.get("objects", ()) if isinstance(layout, Mapping) else getattr(layout, "objects", layout)
    found = []
    for item in objects:
        label = item["label"] if isinstance(item, Mapping) else item.label
        x0, y0, x1, y1 = map(float, item["box"] if isinstance(item, Mapping) else item.rect.corners)
        found.append(NamedBox(_name(label, names), (x0, y0, x1, y1)))
    return found


def boxes(
    layout: Any,
    names: Sequence[str] = (),
    over: Content = None,
    *,
    inks: Mapping[str, Colour] | None = None,
    proportions: tuple[int, int] | None = None,
) -> Drawing:
    """Boxes with their names, over a picture or a blank one; large ones first, so that none hides another.

    Args:
        layout: what `named_boxes` reads.
        names: of the classes, where labels are numbers.
        over: picture beneath, in the same frame.
        inks: colours of some labels; the others get `colour`.
        proportions: (height, width) of the blank frame; None: what there is room for.
    """
    listed = sorted(named_boxes(layout, names), key=lambda item: -_area(item.box))
    kinds, chosen = {name: i for i, name in enumerate(names)}, inks or {}

    def draw(size: tuple[int, int]) -> Image.Image:
        image = _canvas(size if proportions is None else _within(size, proportions), over)
        pen, points = ImageDraw.Draw(image), max(9, round(min(size) / 13))
        taken: list[tuple[float, float, float, float]] = []
        for label, (x0, y0, x1, y1) in listed:
            ink = chosen.get(label) or colour(kinds.get(label, _stable(label)))
            frame = (x0 * (image.width - 1), y0 * (image.height - 1), x1 * (image.width - 1), y1 * (image.height - 1))
            pen.rectangle(frame, outline=ink, width=2)
        for label, (x0, y0, _, y1) in listed:
            ink = chosen.get(label) or colour(kinds.get(label, _stable(label)))
            spot = (x0 * (image.width - 1), y0 * (image.height - 1), y1 * (image.height - 1))
            taken.append(_tag(pen, image.size, label, spot, ink, points, taken))
        return image

    return draw


def label_map(
    labels: Any, names: Sequence[str] = (), legend: bool = True, *, palette: Sequence[Colour] = ()
) -> Drawing:
    """A semantic map, every class in its colour, with the names of those in it beneath.

    Args:
        labels: anything `read_label_map` reads: (H,W).
        names: of the classes; without, their numbers.
        legend: False leaves the names out.
        palette: colours of the first classes; the others get `colour`.
    """
    numbers = read_label_map(labels).numpy()

    def ink(kind: int) -> Colour:
        return palette[kind] if kind < len(palette) else colour(kind)

    def draw(size: tuple[int, int]) -> Image.Image:
        kinds, counts = np.unique(numbers, return_counts=True)
        table = np.zeros((int(kinds.max()) + 1, 3), np.uint8)
        for kind in kinds:
            table[kind] = ink(int(kind))
        listed = [(_name(int(kind), names), ink(int(kind))) for kind in kinds[np.argsort(-counts)]]
        below = _legend(listed, size[0]) if legend else None
        image = Image.fromarray(table[numbers])
        scale = min(size[0] / image.width, size[1] / image.height)
        fitted = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(fitted, Image.Resampling.NEAREST)
        if below is None:
            return image
        whole = Image.new("RGB", (size[0], image.height + below.height + 2), PAPER)
        whole.paste(image, ((size[0] - image.width) // 2, 0))
        whole.paste(below, (0, image.height + 2))
        return whole

    return draw


def card(text: str) -> Drawing:
    """Words on a card, as large as they fit."""

    def draw(size: tuple[int, int]) -> Image.Image:
        image = Image.new("RGB", size, CARD)
        width, height = size[0] - 16, size[1] - 16
        rooms = {p: int(height / (p * 1.3)) for p in range(max(11, size[0] // 8), 8, -1)}  # size of letters -> lines
        points = next((p for p, room in rooms.items() if len(wrap(text, width, p, most=room + 1)) <= room), 8)
        rows = max(1, int(height / (points * 1.3)))
        written = words(text, width, points, INK, CARD, "centre", lines=rows)
        image.paste(written, (8, max(8, (size[1] - written.height) // 2)))
        ImageDraw.Draw(image).rectangle((0, 0, size[0] - 1, size[1] - 1), outline=(222, 219, 208))
        return image

    return draw


def absent(text: str = "not given") -> Drawing:
    """The place of a condition that this sample has not."""

    def draw(size: tuple[int, int]) -> Image.Image:
        image = Image.new("RGB", size, EMPTY)
        points = max(9, size[0] // 12)
        written = words(text, size[0], points, FAINT, EMPTY, "centre")
        image.paste(written, (0, (size[1] - written.height) // 2))
        return image

    return draw


def masked(image: Content, mask: Tensor) -> Image.Image:
    """A picture with what is drawn anew (mask (1,H,W), 1) hatched over."""
    shown = picture(image)
    assert shown is not None
    pixels = np.asarray(shown).astype(np.float32)
    rows, columns = np.indices(pixels.shape[:2])
    stripes = np.where((rows + columns) // max(2, pixels.shape[0] // 16) % 2 == 0, 226.0, 200.0)[..., None]
    anew = mask[0].numpy()[..., None].astype(np.float32)
    return Image.fromarray((pixels * (1 - anew) + stripes * anew).round().astype(np.uint8))


def difference(first: Tensor, second: Tensor, gain: float = 4.0) -> Tensor:
    """|first - second| of pictures (...,3,H,W) in [0,1], times `gain`: black where they agree."""
    return ((first - second).abs() * gain).clamp(0, 1)


def condition(conditioner: Conditioner, value: Any, proportions: tuple[int, int] | None = None) -> Drawing | Content:
    """What shows one input of a conditioner: boxes, a map, a picture, a class name, or words; None where absent.

    Args:
        value: raw, or parsed by the conditioner.
        proportions: (height, width) of the picture that it is a condition of.
    """
    names: Sequence[str] = getattr(conditioner.config, "names", ())
    if value is None:
        return absent()
    if isinstance(value, str):
        return card(value)
    if isinstance(value, (int, np.integer)):
        return card(_name(int(value), names))
    if hasattr(value, "objects") or _is_boxes(value):
        return boxes(value, names, proportions=proportions)
    if isinstance(value, (np.ndarray, Tensor)):
        return _array(torch.as_tensor(value), names)
    if isinstance(value, Image.Image):
        return value
    return card(str(value)[:200])


def _array(value: Tensor, names: Sequence[str]) -> Drawing | Content:
    if value.ndim == 2 and not value.is_floating_point():
        return label_map(value, names)
    if value.ndim == 3 and value.shape[0] == 3 and value.is_floating_point():
        return value.add(1).div(2)
    if value.ndim == 3 and value.shape[0] == 1 and value.is_floating_point():
        return value.expand(3, -1, -1)
    return card("x".join(str(side) for side in value.shape) + " numbers")


def _is_boxes(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "objects" in value
    return isinstance(value, (list, tuple)) and all(isinstance(item, Mapping) and "box" in item for item in value)


def _within(size: tuple[int, int], proportions: tuple[int, int]) -> tuple[int, int]:
    """The largest (width, height) of these proportions (height, width)."""
    scale = min(size[0] / proportions[1], size[1] / proportions[0])
    return round(proportions[1] * scale), round(proportions[0] * scale)


def _canvas(size: tuple[int, int], over: Content) -> Image.Image:
    beneath = picture(over)
    if beneath is None:
        image = Image.new("RGB", size, (250, 250, 251))
        ImageDraw.Draw(image).rectangle((0, 0, size[0] - 1, size[1] - 1), outline=(205, 208, 214))
        return image
    scale = min(size[0] / beneath.width, size[1] / beneath.height)
    return beneath.resize((round(beneath.width * scale), round(beneath.height * scale)), Image.Resampling.LANCZOS)


def _tag(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    label: str,
    spot: tuple[float, float, float],
    ink: Colour,
    points: int,
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Write a box's name where no other name stands: inside its top, above it, or at its foot."""
    x, top, foot = spot
    wide, high = pen.textlength(label, font=font(points)) + 4, points + 3
    left = max(0.0, min(x, size[0] - wide))
    wanted = [top, top - high, foot - high, foot, top + high]
    places = [(left, y, left + wide, y + high) for y in wanted if 0 <= y <= size[1] - high] or [
        (left, 0.0, left + wide, float(high))
    ]
    place = next((p for p in places if not any(_overlap(p, other) for other in taken)), places[0])
    pen.rectangle(place, fill=ink)
    bright = sum(ink) > 420
    pen.text((place[0] + 2, place[1]), label, fill=INK if bright else PAPER, font=font(points))
    return place


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _legend(listed: Sequence[tuple[str, Colour]], width: int) -> Image.Image:
    points = max(9, round(width / 14))
    image = Image.new("RGB", (width, 1000), PAPER)
    pen, x, y, step = ImageDraw.Draw(image), 0.0, 2, points + 5
    for name, ink in listed:
        wide = points + 4 + pen.textlength(name, font=font(points)) + 8
        if x and x + wide > width:
            x, y = 0.0, y + step
        pen.rectangle((x, y + 2, x + points - 2, y + points), fill=ink)
        pen.text((x + points + 2, y), name, fill=INK, font=font(points))
        x += wide
    return image.crop((0, 0, width, min(1000, y + step)))


def _name(label: int | str, names: Sequence[str]) -> str:
    if isinstance(label, str):
        return label
    return names[label] if 0 <= label < len(names) else str(label)


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _stable(label: str) -> int:
    """A number for a name that is on no list; the same in every process."""
    return sum(ord(letter) * (i + 1) for i, letter in enumerate(label)) % 97
