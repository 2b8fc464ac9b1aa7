"""Checks shared by all config readers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ldmkit import LdmkitError, SourceError, Value, suggest, validated


def known_only(given: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Refuse unknown parameters of a config section: `unknown-parameter`, with the closest known name."""
    for key in given:
        if key not in known:
            what = f"unknown parameter {key!r}"
            raise SourceError("unknown-parameter", what, where=f"{where}.{key}", fits=suggest(str(key), known))


def numbers(values: Any, where: str) -> list[int]:
    """A list of integers, as in a config."""
    if not isinstance(values, (list, tuple)) or not all(type(v) is int for v in values):
        raise SourceError("invalid", f"expected a list of integers, got {values!r}", where=where)
    return list(values)


def checked(
    config: type[Value], native: dict[str, Any], where: str, names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Validate a native config and return it as plain JSON data without defaults.

    Args:
        where: place in the source, for errors.
        names: native field -> name in the source, for errors.
    """
    try:
        value = validated(lambda: config.model_validate(native), where, SourceError, config)
    except LdmkitError as error:
        place = str(error.where or where).removeprefix(where).strip(".").split(".")[0].split("[")[0]
        if place in (names or {}):
            error.where = f"{where}.{(names or {})[place]}"
        raise
    return value.model_dump(mode="json", exclude_defaults=True)
