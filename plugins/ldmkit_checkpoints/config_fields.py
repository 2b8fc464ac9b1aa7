"""Checks that every reader of a config needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ldmkit.contracts.value import Value, validated
from ldmkit.errors import LdmkitError, SourceError, suggest


def known_only(given: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Refuse parameters of a yaml section that are not known: `unknown-parameter`, with the nearest name."""
    for key in given:
        if key not in known:
            what = f"the parameter {key!r} is not known"
            raise SourceError("unknown-parameter", what, where=f"{where}.{key}", fits=suggest(str(key), known))


def numbers(values: Any, where: str) -> list[int]:
    """Whole numbers of a yaml list."""
    if not isinstance(values, (list, tuple)) or not all(type(v) is int for v in values):
        raise SourceError("invalid", f"whole numbers are wanted, got {values!r}", where=where)
    return list(values)


def checked(
    config: type[Value], native: dict[str, Any], where: str, names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The native config as plain JSON data, defaults left out, after validation under the source's name.

    Args:
        names: of native fields in the source, for errors.
    """
    try:
        value = validated(lambda: config.model_validate(native), where, SourceError, config)
    except LdmkitError as error:
        place = str(error.where or where).removeprefix(where).strip(".").split(".")[0].split("[")[0]
        if place in (names or {}):
            error.where = f"{where}.{(names or {})[place]}"
        raise
    return value.model_dump(mode="json", exclude_defaults=True)
