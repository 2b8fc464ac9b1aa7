"""Guidance as a field of other guidance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from ldmkit import Guidance, SpecError, get, name_of, registered_name


def _read(given: Any) -> Any:
    """The value for a name or {"type": name, "config": {...}}."""
    if isinstance(given, str):
        given = {"type": given}
    if not isinstance(given, Mapping):
        return given
    if not isinstance(given.get("type"), str) or not set(given) <= {"type", "config"}:
        what = f"not a guidance: {dict(given)!r}"
        raise SpecError("guidance-base", what, fits='a name, or {"type": ..., "config": {...}}')
    return get("guidance", given["type"]).of(given.get("config", {}), "config")


def _written(guidance: Guidance) -> dict[str, Any]:
    name = registered_name(name_of("guidance", type(guidance)))
    return {"type": name, "config": guidance.model_dump(mode="json")}


_SCHEMA = {"type": "object", "properties": {"type": {"type": "string"}, "config": {"type": "object"}}}

Nested: TypeAlias = Annotated[
    Guidance, BeforeValidator(_read), PlainSerializer(_written), WithJsonSchema({**_SCHEMA, "required": ["type"]})
]
"""Any installed guidance; in JSON {"type": name, "config": {...}}."""
