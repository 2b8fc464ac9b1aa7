"""Strict validation: values of another type are refused where pydantic would convert them."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

_SCALARS = frozenset({"bool", "int", "float", "str"})
_ORDERED = frozenset({"list", "tuple"})
_DATA = frozenset({"metadata", "config", "serialization", "default", "expected", "ref", "cls"})
"""Entries of a schema that contain no nested schema."""


def exact(schema: CoreSchema) -> CoreSchema:
    """A stricter copy of a pydantic schema: True is not accepted as 1, "3" as 3, bytes as a string or a set as a list,
    and NaN and infinities are refused.

    Integers are still accepted as floats, and lists as tuples. Explicit settings of a type (`Field(strict=False)`, a
    model's `allow_inf_nan`) are respected.
    """
    tightened: CoreSchema = _tightened(schema, finite=True)
    return tightened


class _Exact:
    """`Annotated[kind, EXACT]` applies `exact` to any type."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return exact(handler(source))


EXACT = _Exact()


def _tightened(node: Any, finite: bool) -> Any:
    if isinstance(node, (list, tuple)):
        return type(node)(_tightened(item, finite) for item in node)
    if not isinstance(node, dict) or _is_tightened(node):
        return node
    if not isinstance(node.get("type"), str):  # a plain dict of schemas, such as fields by name
        return {key: _tightened(item, finite) for key, item in node.items()}
    finite = finite and "allow_inf_nan" not in (node.get("config") or {})
    new = {key: item if key in _DATA else _tightened(item, finite) for key, item in node.items()}
    kind = new["type"]
    if kind in _SCALARS:
        new.setdefault("strict", True)
    if kind == "float" and finite:
        new.setdefault("allow_inf_nan", False)
    if kind in _ORDERED and new.get("strict") is None:
        return {"type": "function-before", "function": {"type": "no-info", "function": _ordered}, "schema": new}
    return new


def _is_tightened(node: dict[str, Any]) -> bool:
    function = node.get("function")
    return isinstance(function, dict) and function.get("function") is _ordered


def _ordered(value: Any) -> Any:
    if isinstance(value, (Set, Mapping)):
        raise ValueError("its items have no order; pass a list")
    return value
