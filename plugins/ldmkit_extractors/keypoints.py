"""Keypoints of people as OpenPose writes them: its JSON, the layouts of bodies, and where their points are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

from pydantic import Field, model_validator

from ldmkit import InputError, Value, read_json
from ldmkit.bounds import MAX_SIDE

Numbers: TypeAlias = Annotated[list[Annotated[float, Field(ge=-1e5, le=1e5)]], Field(max_length=3 * 200)]
"""x, y and confidence of one point after the other."""
Side: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SIDE)]

UNREAD = ("version", "person_id", "part_candidates")
"""Keys of OpenPose's files that say nothing of what is drawn; so do those that end in _3d."""

BODIES: dict[int, tuple[int | tuple[int, int], ...]] = {
    18: tuple(range(18)),
    25: (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18),
    17: (0, (5, 6), 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3),
}
"""Number of points -> where each of the 18 of OpenPose's COCO model is: its own, BODY_25's, and those of COCO itself,
which has no neck: halfway between the shoulders."""
HAND, FACES = 21, (68, 70)


class Keypoint(NamedTuple):
    """A point in units of its file, and how sure it is; (x, y)."""

    x: float
    y: float
    confidence: float


def _without_unread(data: Any) -> Any:
    if not isinstance(data, Mapping):
        return data
    return {key: value for key, value in data.items() if key not in UNREAD and not str(key).endswith("_3d")}


class Person(Value):
    """What is known of one person; a part that is absent, or empty, is not drawn."""

    refusal = InputError

    pose_keypoints_2d: Numbers | None = None
    face_keypoints_2d: Numbers | None = None
    hand_left_keypoints_2d: Numbers | None = None
    hand_right_keypoints_2d: Numbers | None = None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        return _without_unread(data)

    @model_validator(mode="after")
    def _layouts(self) -> Person:
        for name, counts in _COUNTS.items():
            found = len(getattr(self, name) or ())
            if found and found not in [3 * count for count in counts]:
                fits = f"3 numbers each for {' or '.join(map(str, counts))} points"
                raise InputError("keypoints", f"{found} numbers", where=name, fits=fits)
        return self

    def points(self, name: str) -> list[Keypoint]:
        """The points of one of its parts, () where it is not known."""
        numbers = getattr(self, name) or []
        return [Keypoint(*numbers[i : i + 3]) for i in range(0, len(numbers), 3)]

    def body(self) -> list[Keypoint]:
        """The 18 points of its body."""
        given = self.points("pose_keypoints_2d")
        return [_taken(given, place) for place in BODIES[len(given)]] if given else []


_COUNTS: dict[str, Sequence[int]] = {
    "pose_keypoints_2d": tuple(BODIES), "face_keypoints_2d": FACES,
    "hand_left_keypoints_2d": (HAND,), "hand_right_keypoints_2d": (HAND,),
}  # fmt: skip


def _taken(given: Sequence[Keypoint], place: int | tuple[int, int]) -> Keypoint:
    if isinstance(place, int):
        return given[place]
    one, other = (given[i] for i in place)
    return Keypoint((one.x + other.x) / 2, (one.y + other.y) / 2, min(one.confidence, other.confidence))


class People(Value):
    """Everyone in a picture, in OpenPose's JSON; also as preprocessors of ControlNet write it, with the canvas' size.

    Raw, it may be the path of a .json file, or a list of one such object.
    """

    refusal = InputError

    people: Annotated[list[Person], Field(max_length=200)]
    canvas_width: Side | None = None
    canvas_height: Side | None = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        if isinstance(data, (str, Path)) and str(data).endswith(".json"):
            data = read_json(Path(data), InputError)
        if isinstance(data, list) and len(data) == 1:
            data = data[0]
        known = _without_unread(data)
        if isinstance(known, dict) and known.get("animals") in (None, []):
            known.pop("animals", None)
        return known

    @model_validator(mode="after")
    def _whole_canvas(self) -> People:
        if (self.canvas_width is None) != (self.canvas_height is None):
            raise InputError("keypoints", "a canvas with one side", where="canvas", fits="its width and its height")
        return self

    @property
    def canvas(self) -> tuple[int, int] | None:
        """(height, width), where the file says it."""
        if self.canvas_height is None or self.canvas_width is None:
            return None
        return self.canvas_height, self.canvas_width

    @property
    def in_fractions(self) -> bool:
        """Whether places are fractions of the canvas rather than pixels: nothing that is known lies beyond 1."""
        known = [
            point for person in self.people for name in _COUNTS for point in person.points(name) if point.confidence > 0
        ]
        return bool(known) and all(abs(point.x) <= 1 and abs(point.y) <= 1 for point in known)
