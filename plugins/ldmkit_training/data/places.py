"""Paths into a sample's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


class Place(NamedTuple):
    """An input, or a field of one that is a mapping."""

    name: str
    field: str | None = None

    def __str__(self) -> str:
        return self.name if self.field is None else f"{self.name}.{self.field}"


def replaced(inputs: Mapping[str, Any], places: Iterable[Place], make: Callable[[Any, Place], Any]) -> dict[str, Any]:
    """Inputs with what stands at some places replaced by `make(value, place)`; places that are absent stay so."""
    made = dict(inputs)
    for place in places:
        name, field = place
        if name not in made:
            continue
        if field is None:
            made[name] = make(made[name], place)
        elif isinstance(made[name], Mapping) and made[name].get(field) is not None:
            made[name] = {**made[name], field: make(made[name][field], place)}
    return made
