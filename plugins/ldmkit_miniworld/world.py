"""Pictures of the world, with everything that is known about them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from ldmkit import InputError
from ldmkit_miniworld.backdrop import draw_backdrop, draw_land
from ldmkit_miniworld.canvas import Canvas
from ldmkit_miniworld.captions import captioned
from ldmkit_miniworld.scene import Scene, compose
from ldmkit_miniworld.things import draw_item
from ldmkit_miniworld.vocabulary import SEMANTIC

MAX_SIDE = 512
_FIRST = 32


@dataclass(frozen=True, slots=True)
class WorldPicture:
    """One picture and what it shows.

    Args:
        image: (size,size,3) uint8.
        caption: true of the picture; `scene.caption_facts` is what it says.
        label: one of `CLASSES`.
        layout: a dict {"label", "box": [x0, y0, x1, y1]} for every visible object, far to near; the label is one of
            `LAYOUT_CLASSES`, the box tight around its visible pixels, in parts of the picture.
        semantic: (size,size) uint8, an index of `SEMANTIC` for every pixel.
    """

    id: str
    image: np.ndarray
    caption: str
    label: str
    layout: list[dict[str, Any]]
    semantic: np.ndarray
    scene: Scene


class World:
    """All pictures of the world: each is a function of its split, its index and the size alone.

    Args:
        size: side in pixels, a multiple of 32 up to 512. The scene is the same at all sizes.

    Raises:
        InputError: `bad-size`.
    """

    def __init__(self, size: int = 64):
        if size <= 0 or size % 32 or size > MAX_SIDE:
            raise InputError("bad-size", f"size {size}", where="size", fits=f"a multiple of 32 up to {MAX_SIDE}")
        self.size = size

    def scene(self, split: str, index: int) -> Scene:
        """What picture `index` of a split shows; any name is a split, and splits share no pictures."""
        return captioned(compose(f"{split}/{index}"))

    def sample(self, split: str, index: int) -> WorldPicture:
        """Picture `index` of a split."""
        scene = self.scene(split, index)
        image, semantic, layout = self.render(scene)
        return WorldPicture(f"{split}/{index}", image, scene.caption, scene.label, layout, semantic, scene)

    def render(self, scene: Scene, size: int | None = None) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Image, semantic map and layout of a scene, as in `Picture`."""
        canvas = Canvas(size or self.size)
        draw_backdrop(canvas, scene)
        behind = [i for i, item in enumerate(scene.items) if item.kind in ("sun", "moon")]
        for i in behind:
            draw_item(canvas, scene, scene.items[i], _FIRST + i)
        draw_land(canvas, scene)
        for i, item in enumerate(scene.items):
            if i not in behind:
                draw_item(canvas, scene, item, _FIRST + i)
        image, owners = canvas.finish()
        return image, _labels(scene)[owners], _boxes(scene, owners)


def digest(picture: WorldPicture) -> str:
    """A short fingerprint of everything that a picture holds."""
    mark = hashlib.blake2b(picture.image.tobytes(), digest_size=8)
    mark.update(picture.semantic.tobytes())
    mark.update(repr((picture.id, picture.caption, picture.label, picture.layout)).encode())
    return mark.hexdigest()


def _labels(scene: Scene) -> np.ndarray:
    """Owner -> label."""
    table = np.zeros(256, dtype=np.uint8)
    table[: len(SEMANTIC)] = range(len(SEMANTIC))
    for i, item in enumerate(scene.items):
        table[_FIRST + i] = SEMANTIC.index(item.kind)
    return table


def _boxes(scene: Scene, owners: np.ndarray) -> list[dict[str, Any]]:
    size = len(owners)
    layout = []
    for i, item in enumerate(scene.items):
        mine = owners == _FIRST + i
        rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
        if len(rows):
            corners = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            layout.append({"label": item.label, "box": [float(v) / size for v in corners]})
    return layout
