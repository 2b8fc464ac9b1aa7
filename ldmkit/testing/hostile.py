"""Inputs generated from a JSON schema: a few valid ones, and many hostile ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ldmkit.files.picture_files import png_uri

Schema = Mapping[str, Any]

_DEPTH = 6
_MOST = 6
"""Maximum number of values generated for one place of a schema."""


def sound(schema: Schema) -> list[Any]:
    """A few values that a JSON schema allows. A part may have further requirements, which are not known here."""
    return _sound(schema, schema, 0)


def _sound(schema: Schema, root: Schema, depth: int) -> list[Any]:
    schema = _resolved(schema, root)
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        return list(schema["enum"])[:_MOST]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            options = [_sound(option, root, depth) for option in schema[key]]
            return [option[i] for i in range(_MOST) for option in options if i < len(option)]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object" or "properties" in schema:
        return _objects(schema, root, depth)
    if kind == "array":
        return _arrays(schema, root, depth)
    if kind in _MAKERS:
        return _MAKERS[kind](schema)
    fixed: dict[Any, list[Any]] = {"boolean": [True, False], "null": [None]}
    return fixed.get(kind, ["a", 1])


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        schema = target
    if "allOf" in schema:
        merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            merged |= _resolved(part, root)
        return merged
    return schema


def _objects(schema: Schema, root: Schema, depth: int) -> list[Any]:
    fields = schema.get("properties", {})
    if depth > _DEPTH:
        fields = {name: fields[name] for name in schema.get("required", ())}
    values = {name: _sound(field, root, depth + 1) for name, field in fields.items()}
    if not values:
        inner = schema.get("additionalProperties")
        return [{}, *({"a": value} for value in (_sound(inner, root, depth + 1) if isinstance(inner, Mapping) else ()))]
    full = [{name: values[name][i % len(values[name])] for name in values} for i in range(_MOST)]
    required = set(schema.get("required", ()))
    return [*({name: v for name, v in one.items() if name in required} for one in full[:3]), *full]


def _arrays(schema: Schema, root: Schema, depth: int) -> list[Any]:
    least, most = int(schema.get("minItems", 0)), schema.get("maxItems")
    first = [_sound(item, root, depth + 1) for item in schema.get("prefixItems", ())]
    items = _sound(schema.get("items") or {}, root, depth + 1) if depth <= _DEPTH and schema.get("items") else []
    found = []
    for i in range(_MOST):
        value = [options[(i + place) % len(options)] for place, options in enumerate(first)]
        wanted = max(least, 1 + i % 3)
        if items:
            value += [items[(i + place) % len(items)] for place in range(len(value), wanted)]
        if len(value) >= least and (most is None or len(value) <= most):
            found.append(value)
    return [*found, *([[]] if least == 0 and not first else [])]


def _strings(schema: Schema) -> list[Any]:
    if schema.get("format") == "picture":
        return [*(_picture(i, 255) for i in range(3)), *(_picture(i, 1) for i in range(3))]
    least, most = int(schema.get("minLength", 0)), int(schema.get("maxLength", 1000))
    words = ("a", "red house", "Großes Bild 山", "0123456789")
    return [word.ljust(least, "a")[:most] for word in words]


def _picture(number: int, level: int) -> str:
    """A greyscale PNG with two levels: 255 for a picture or a mask, 1 for a map of two classes."""
    return png_uri((np.arange(64).reshape(8, 8) % (number + 2) == 0).astype(np.uint8) * np.uint8(level))


def _integers(schema: Schema) -> list[Any]:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", int(low) + 65) - 1)
    step = int(schema.get("multipleOf", 1))
    start = -(-int(low) // step) * step
    return list(range(start, int(high) + 1, step)[:_MOST])


def _numbers(schema: Schema) -> list[Any]:
    low = float(schema.get("minimum", schema.get("exclusiveMinimum", 0.0)))
    high = float(schema.get("maximum", schema.get("exclusiveMaximum", low + 1.0)))
    return [low + (high - low) * share for share in (0.1, 0.2, 0.5, 0.9)]


_MAKERS: dict[Any, Callable[[Schema], list[Any]]] = {"string": _strings, "integer": _integers, "number": _numbers}


def hostile(schema: Schema, good: list[Any]) -> Iterator[tuple[str, Any]]:
    """(description, value): wrong types, extremes and damage, and valid inputs with a single fault.

    Args:
        good: valid inputs as plain JSON data.
    """
    yield from _anything()
    if "picture" in str(schema):
        yield from _pictures()
    numbers = sorted(_bounds(schema))
    seen: set[str] = set()
    for value in good:
        for path, item in _places(value):
            for what, wrong in _damaged(item, numbers):
                shape = "".join("[]" if isinstance(step, int) else f".{step}" for step in path) + what
                if path and shape not in seen:
                    seen.add(shape)
                    yield f"{_named(path)} {what}", _replaced(value, path, wrong)
        for what, wrong in _damaged(value, numbers):
            yield what, wrong


_NAN, _INF = float("nan"), float("inf")

_SCALARS: tuple[tuple[str, Any], ...] = (
    ("None", None),
    ("True", True),
    ("-1", -1),
    ("0", 0),
    ("2**63", 2**63),
    ("10**400", 10**400),
    ("1e308", 1e308),
    ("NaN", _NAN),
    ("infinity", _INF),
    ("-infinity", -_INF),
    ("an empty text", ""),
    ("blanks", " \t\n"),
    ("a text with NUL", "a\0b"),
    ("a lone surrogate", "\ud800"),
    ("emoji, right-to-left and combining characters", "👩‍👩‍👧 שלום e\u0301\u202e"),
    ("a text of 100000 characters", "x" * 100_000),
    ("the text 'nan'", "nan"),
    ("an empty list", []),
    ("an empty mapping", {}),
)


def _anything() -> Iterator[tuple[str, Any]]:
    yield from _SCALARS
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    yield "a list nested 5000 deep", deep
    chain: Any = {}
    for _ in range(5000):
        chain = {"a": chain}
    yield "a mapping nested 5000 deep", chain
    loop: list[Any] = []
    loop.append(loop)
    yield "a list that contains itself", loop
    yield "a list of 20000 numbers", [0] * 20_000
    yield "a list of lists of different lengths", [[0, 1], [0]]
    yield "a list of NaN", [_NAN] * 4
    yield "a mapping whose keys are not strings", {1: 2, None: 3}
    yield "bytes", b"\xff\x00"
    yield "a set", {1, 2}
    yield "an object", object()
    yield "a class", dict
    yield "a function", len
    yield "a complex number", 1j
    yield "an iterator", iter(())
    for shape in ((), (0,), (4,), (3, 8, 8)):
        yield f"an array of NaN of shape {shape}", np.full(shape, _NAN, dtype=np.float32)
        yield f"a tensor of NaN of shape {shape}", torch.full(shape, _NAN)
    yield "an array of objects", np.array([None, "a"], dtype=object)
    yield "a complex tensor", torch.zeros(3, 8, 8, dtype=torch.complex64)
    yield "a tensor without data", torch.zeros(3, 8, 8, device="meta")
    yield "a sparse tensor", torch.zeros(3, 8, 8).to_sparse()


def _pictures() -> Iterator[tuple[str, Any]]:
    yield "a tensor of 2", torch.full((3, 8, 8), 2.0)
    yield "a tensor of infinities", torch.full((3, 8, 8), _INF)
    yield "a tensor of one channel", torch.zeros(1, 8, 8)
    yield "a tensor without pixels", torch.zeros(3, 0, 8)
    yield "a tensor of integers", torch.zeros(3, 8, 8, dtype=torch.long)
    yield "an array of 16-bit integers", np.zeros((8, 8, 3), dtype=np.uint16)
    yield "the path of a missing file", "no/such/file.png"
    yield "the path of a folder", "/"
    uri = _picture(0, 255)
    yield "half a picture file", uri[: len(uri) // 2]
    yield "a picture file with damaged bytes", uri[:60] + "AAAA" + uri[64:]
    yield "a data URI of text", "data:text/plain;base64,aGVsbG8="
    yield "a data URI without data", "data:image/png;base64,"


def _bounds(schema: Any) -> set[float]:
    """Numbers just outside the bounds anywhere in a schema."""
    found: set[float] = set()
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in ("minimum", "exclusiveMinimum") and isinstance(value, (int, float)):
                found.add(value - 1)
            elif key in ("maximum", "exclusiveMaximum") and isinstance(value, (int, float)):
                found.add(value + 1)
            found |= _bounds(value)
    elif isinstance(schema, (list, tuple)):
        for value in schema:
            found |= _bounds(value)
    return found


def _places(value: Any, path: tuple[int | str, ...] = ()) -> Iterator[tuple[tuple[int | str, ...], Any]]:
    """Every nested value, with its path; of long lists only the ends."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _places(item, (*path, key))
            yield (*path, key), item
    elif isinstance(value, list):
        for index in sorted({0, 1, len(value) - 1} & set(range(len(value)))):
            yield from _places(value[index], (*path, index))
            yield (*path, index), value[index]


def _damaged(item: Any, numbers: list[float]) -> Iterator[tuple[str, Any]]:
    for what, wrong in _SCALARS:
        yield f"replaced by {what}", wrong
    if isinstance(item, (int, float)) and not isinstance(item, bool):
        for number in numbers:
            yield f"replaced by {number}", number
        yield "replaced by its text", str(item)
        yield "negated", -item
        yield "a million times as large", item * 1_000_000
    elif isinstance(item, str):
        yield "cut in half", item[: len(item) // 2]
        yield "repeated 1000 times", item[:1000] * 1000
    elif isinstance(item, Mapping):
        for key in item:
            yield f"without {key!r}", {k: v for k, v in item.items() if k != key}
        yield "with an unknown key", {**item, "no_such_key": 1}
        yield "as a list", list(item.items())
    elif isinstance(item, list):
        yield "without its last item", item[:-1]
        yield "with its last item twice", [*item, *copy.deepcopy(item[-1:])]
        yield "repeated to 2000 items", (item * 2000)[:2000]
        yield "as a mapping", {str(i): v for i, v in enumerate(item)}
        yield "reversed", item[::-1]


def _named(path: tuple[int | str, ...]) -> str:
    return "input" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _replaced(value: Any, path: tuple[int | str, ...], wrong: Any) -> Any:
    """A copy of a value with the item at a path replaced."""
    if not path:
        return wrong
    step, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        return {key: _replaced(item, rest, wrong) if key == step else item for key, item in value.items()}
    return [_replaced(item, rest, wrong) if place == step else item for place, item in enumerate(value)]
