"""Config fields that choose between algorithms, and examples that cover all of their values."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ldmkit.contracts.example import Example
from ldmkit.contracts.value import Value
from ldmkit.errors import LdmkitError


@dataclass(frozen=True)
class Choice:
    """A value of a field that no example covers.

    Args:
        field: its name, of a config inside the config with a dot.
        number: index of the example that was changed, from 0.
        example: that example with the field changed; None: every example refuses the value.
        refused: the last example's error, if the value is refused.
    """

    field: str
    value: Any
    number: int = 0
    example: Example | None = None
    refused: str = ""

    @property
    def name(self) -> str:
        """`field=value`."""
        return f"{self.field}={self.value.value if isinstance(self.value, Enum) else self.value}"


def not_taken(config: type[Value], examples: Sequence[Example]) -> Iterator[Choice]:
    """Values of choices that no example covers, each with the first example that can be changed to it.

    Choices are fields of literals, booleans and enumerations, and the fields in `Example.vary`, which lists all values
    to cover.
    """
    made = [config.of(dict(example.config)) for example in examples]
    asked = {name: tuple(values) for example in examples for name, values in example.vary.items()}
    for field, values in {**choices_of(config), **asked}.items():
        taken = [_read(one, field) for one in made]
        for value in values:
            if not any(_equal(value, one) for one in taken):
                yield _changed(config, examples, field, value)


def left_out(config: type[Value], examples: Sequence[Example]) -> list[str]:
    """`field=value` of choices that `Example.vary` leaves out."""
    asked = {name for example in examples for name in example.vary}
    allowed = {(name, repr(value)) for example in examples for name, values in example.vary.items() for value in values}
    taken = {(name, repr(_read(config.of(dict(one.config)), name))) for name in asked for one in examples}
    return [
        Choice(name, value).name
        for name, values in choices_of(config).items()
        for value in values
        if name in asked and (name, repr(value)) not in allowed | taken
    ]


def choices_of(config: type[Value]) -> dict[str, tuple[Any, ...]]:
    """Fields of literals, booleans and enumerations, each with all of its values.

    Fields of nested part configs belong to another part, whose examples vary them.
    """
    found = {name: _values(field.annotation) for name, field in config.model_fields.items()}
    return {name: values for name, values in found.items() if values}


def _values(kind: Any) -> tuple[Any, ...]:
    """All values of a type made of literals, booleans and enumerations; () for other types."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _values(get_args(kind)[0])
    if origin is Literal:
        return get_args(kind)
    if kind is bool:
        return (False, True)
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return tuple(kind)
    if origin in (Union, types.UnionType):
        inner = {one: (None,) if one is types.NoneType else _values(one) for one in get_args(kind)}
        return () if not all(inner.values()) else tuple(value for values in inner.values() for value in values)
    return ()


def _read(config: Any, field: str) -> Any:
    for name in field.split("."):
        config = getattr(config, name)
    return config


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _changed(config: type[Value], examples: Sequence[Example], field: str, value: Any) -> Choice:
    refused = ""
    for number, example in enumerate(examples):
        changed = example._replace(config=_with(example.config, field.split("."), value))
        try:
            config.of(dict(changed.config))
        except LdmkitError as error:
            refused = f"examples[{number}]: {error}"
            continue
        return Choice(field, value, number, changed)
    return Choice(field, value, refused=refused)


def _with(config: Any, path: Sequence[str], value: Any) -> Mapping[str, Any]:
    given = config.model_dump() if isinstance(config, Value) else dict(config)
    name, *rest = path
    return {**given, name: _with(given.get(name, {}), rest, value) if rest else value}
