"""Ways of reading a text: options that an input takes beside its `text`, if its conditioner knows any."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import TypeAdapter

from ldmkit.contracts.conditioner import Conditioner


def text_options(conditioner: Conditioner) -> frozenset[str]:
    """Names of the fields that may stand beside `text` in a conditioner's input, by the schema of that; none: it takes
    a text alone, or no text."""
    schema = TypeAdapter(conditioner.Input).json_schema()
    for one in schema.get("anyOf", [schema]):
        fields = one.get("properties", {})
        if one.get("type") == "object" and "text" in fields:
            return frozenset(fields) - {"text"}
    return frozenset()


def with_text_options(
    readers: Mapping[str, Conditioner], row: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Inputs of which the texts are read with options; those that say options themselves keep them.

    Args:
        readers: input name -> the conditioner that reads it.
        row: raw inputs.
        options: those that a text has no say in.
    """
    able = _able(readers, options)
    made = dict(row)
    for name, value in row.items():
        if name in able and isinstance(value, Mapping) and "text" in value:
            made[name] = {**options, **value}
        elif name in able and isinstance(value, (str, list)):
            made[name] = {"text": value, **options}
    return made


def _able(readers: Mapping[str, Conditioner], options: Collection[str]) -> set[str]:
    return {name for name, part in readers.items() if set(options) <= text_options(part)} if options else set()


def check_text_options(readers: Mapping[str, Conditioner], options: Collection[str]) -> bool:
    """Whether some input takes all of the options."""
    return bool(_able(readers, options)) or not options
