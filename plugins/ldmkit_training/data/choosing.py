"""Chooses one of several captions per epoch, independent of where a run was resumed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ldmkit_training.data.geometry import random_draw


def one_of(inputs: Mapping[str, Any], choices: Collection[str], *key: object) -> dict[str, Any]:
    """A sample's inputs with one of each input's alternatives: the first, or one that depends on the key."""
    found = dict(inputs)
    for name in choices:
        if isinstance(value := found.get(name), list) and value:
            found[name] = value[int(random_draw("choice", name, *key).x * len(value))] if key else value[0]
    return found


def each_of(inputs: Mapping[str, Any], choices: Collection[str]) -> Iterator[dict[str, Any]]:
    """A sample's inputs so often that every alternative is among them."""
    several = {name: inputs[name] for name in choices if isinstance(inputs.get(name), list) and inputs[name]}
    for number in range(max([1, *map(len, several.values())])):
        yield {**inputs, **{name: value[min(number, len(value) - 1)] for name, value in several.items()}}
