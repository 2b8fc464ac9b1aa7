"""People as skeletons in the colours of OpenPose's ControlNets."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field
from torch import Tensor

from ldmkit import Example, Extractor, InputError, from_levels, shown
from ldmkit.bounds import MAX_PIXELS
from ldmkit.files.json import raw_input
from ldmkit_extractors.keypoints import Keypoint, People, Person, Side
from ldmkit_extractors.strokes import Colour, disc, limb, thick_line

Array = np.ndarray[Any, Any]
Place = tuple[float, float] | None

LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
"""Pairs of the 18 points of a body, in the order in which they are drawn."""
FINGERS = tuple((0 if i % 4 == 0 else i, i + 1) for i in range(20))
"""Pairs of the 21 points of a hand: five fingers from the wrist."""


_RISE = ((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0))
JOINTS: tuple[Colour, ...] = (*_RISE, *((b, r, g) for r, g, b in _RISE), *((g, b, r) for r, g, b in _RISE))
"""Of the points of a body, red to magenta, and of the limbs in the same order, at 0.6 of the brightness."""
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
WHITE, BLUE = (255, 255, 255), (0, 0, 255)


def _finger(number: int) -> Colour:
    """Of the 20 parts of a hand: hues a twentieth apart."""
    red, green, blue = (round(share * 255) for share in colorsys.hsv_to_rgb(number / len(FINGERS), 1, 1))
    return red, green, blue


def _body(seed: int) -> list[float]:
    """The numbers of a body of 18 points, for examples."""
    rng = np.random.default_rng(seed)
    places = rng.integers(2, 30, (18, 2)).tolist()
    return [float(number) for x, y in places for number in (x, y, 1)]


def _people(seed: int) -> dict[str, Any]:
    return {"people": [{"pose_keypoints_2d": _body(seed)}], "canvas_width": 32, "canvas_height": 32}


class Pose(Extractor):
    """Skeletons on black from keypoints (Cao et al. 2017; the hint of `control_*_openpose`).

    Takes OpenPose's JSON, with bodies of 18 points (COCO), 25 (BODY_25; feet are not drawn) or 17 (COCO's own, the neck
    halfway between the shoulders), hands of 21 and faces of 68 or 70. Limbs are ellipses in colours from red to
    magenta at 0.6 of the brightness, joints full discs upon them; fingers are lines, faces white dots. Every pixel is
    what the published preprocessor draws by OpenCV, where nothing reaches over the border.

    Places are pixels, or, where none of the file is beyond 1, fractions of the canvas.

    Args:
        size: (height, width) of the hint, to which the canvas of the file is scaled; None: what the file says.
        confidence: points that are not surer are not drawn.
        hands, face: whether they are drawn where the file has them.
        stick, radius: of limbs, half their width, and of joints, in pixels.
    """

    Input: ClassVar[Any] = People
    api: ClassVar[int] = 1
    examples: ClassVar[tuple[Example, ...]] = (
        Example(inputs=(_people(0), _people(1))),
        Example({"size": [24, 40], "stick": 2, "radius": 2}, inputs=(_people(0), _people(2))),
    )

    size: tuple[Side, Side] | None = None
    confidence: float = Field(default=0.0, ge=0, lt=1)
    hands: bool = True
    face: bool = True
    stick: int = Field(default=4, ge=1, le=256)
    radius: int = Field(default=4, ge=0, le=256)

    def extract(self, value: People) -> Tensor:
        height, width = self.hint_size(value)
        rows, columns = value.canvas or (height, width)
        scale = (width, height) if value.in_fractions else (width / columns, height / rows)
        canvas = np.zeros((height, width, 3), np.uint8)
        for person in value.people:
            self._draw(canvas, person, scale)
        return from_levels(canvas)

    def hint_size(self, value: People) -> tuple[int, int]:
        size = self.size or value.canvas
        if size is None:
            what = "the file does not say how large its picture is"
            raise InputError("keypoints", what, where="canvas_width", fits="pose:size=[512,768], height and width")
        if size[0] * size[1] > MAX_PIXELS:
            what = f"{size[0]} x {size[1]} pixels"
            raise InputError("picture-too-large", what, where="canvas_width", fits=f"at most {MAX_PIXELS} pixels")
        return size

    @classmethod
    def parse(cls, raw: Any, where: str) -> Any:
        named = isinstance(raw, str | Path) and Path(raw).suffix.lower() in _PICTURES
        if named or isinstance(raw, Image.Image):
            what = f"it draws people whose points are given, and does not find them in a picture; got {shown(raw)}"
            raise InputError("keypoints", what, where=where, fits="OpenPose's JSON, as a mapping or a .json file")
        return super().parse(raw, where)

    @classmethod
    def from_text(cls, text: str) -> Any:
        """JSON, or the path of a .json file."""
        return raw_input(text)

    def _draw(self, canvas: Array, person: Person, scale: tuple[float, float]) -> None:
        def placed(points: Sequence[Keypoint]) -> list[Place]:
            return [
                (point.x * scale[0], point.y * scale[1]) if point.confidence > self.confidence else None
                for point in points
            ]

        self._draw_body(canvas, placed(person.body()))
        for name in ("hand_left_keypoints_2d", "hand_right_keypoints_2d") if self.hands else ():
            _draw_hand(canvas, placed(person.points(name)))
        for point in placed(person.points("face_keypoints_2d")) if self.face else ():
            if point is not None and min(point) >= 1:
                disc(canvas, _pixel(point), 3, WHITE)

    def _draw_body(self, canvas: Array, points: Sequence[Place]) -> None:
        for (one, other), colour in zip(LIMBS, JOINTS, strict=False) if points else ():
            start, end = points[one], points[other]
            if start is not None and end is not None:
                limb(canvas, start, end, self.stick, tuple(level * 3 // 5 for level in colour))  # type: ignore[arg-type]
        for point, colour in zip(points, JOINTS, strict=False):
            if point is not None:
                disc(canvas, _pixel(point), self.radius, colour)


def _draw_hand(canvas: Array, points: Sequence[Place]) -> None:
    """Fingers and their joints; points in the first row or column count as absent, as they do in the original."""
    known = [None if point is None or min(point) < 1 else _pixel(point) for point in points]
    for number, (one, other) in enumerate(FINGERS if points else ()):
        start, end = known[one], known[other]
        if start is not None and end is not None:
            thick_line(canvas, start, end, _finger(number))
    for joint in known:
        if joint is not None:
            disc(canvas, joint, 4, BLUE)


def _pixel(point: tuple[float, float]) -> tuple[int, int]:
    return int(point[0]), int(point[1])
