"""What a caption says, in a form that can be checked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asked:
    """`count` objects of a kind, all of this colour (None: the caption names no colour)."""

    kind: str
    colour: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Relation:
    """`objects[subject]` is `name` ("left of", "right of", "above", "below") `objects[target]`."""

    name: str
    subject: int
    target: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What a caption asks for; None where it does not say.

    The counts are exact: a picture of the caption holds just so many of what is named.
    """

    label: str | None = None
    time: str | None = None
    objects: tuple[Asked, ...] = ()
    relations: tuple[Relation, ...] = ()
