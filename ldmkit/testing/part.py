"""The contract of parts of all kinds: they load, are documented, and their configs convert to and from JSON."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from pydantic import ValidationError

from ldmkit.contracts.example import Example
from ldmkit.contracts.value import Value
from ldmkit.errors import LdmkitError
from ldmkit.plugins.catalogue import Entry, load_entry
from ldmkit.plugins.kinds import CONFIGURED
from ldmkit.testing.checks import Check, NotApplicable, check, expect, fail
from ldmkit.testing.choices import Choice, left_out, not_taken


@dataclass(frozen=True)
class Subject:
    """A part: an installed one, or a class that was passed directly.

    Args:
        given: the class, if it is not an installed part.
        chosen: examples to check instead of the class's own.
    """

    entry: Entry
    given: Any = None
    chosen: tuple[Example, ...] | None = None

    @property
    def cls(self) -> Any:
        """Its class."""
        return load_entry(self.entry) if self.given is None else self.given

    @property
    def config(self) -> type[Value]:
        """The class of its configs: for values, the class itself."""
        found = self.cls.Config if self.entry.kind in CONFIGURED else self.cls
        if not (inspect.isclass(found) and issubclass(found, Value)):
            fail("`Config` to be a subclass of ldmkit.Value", f"{found!r}")
        return found

    @property
    def examples(self) -> tuple[Example, ...]:
        """The examples to check."""
        return examples_of(self.cls) if self.chosen is None else self.chosen

    @cached_property
    def varied(self) -> tuple[Choice, ...]:
        """Choices that its examples do not cover; () for data and stages, whose files are written for each example."""
        return () if self.entry.kind in FIXED else tuple(not_taken(self.config, self.examples))


FIXED = ("data", "stage")
"""Kinds whose examples read files that are written for them, so that the kit cannot vary the config."""


@runtime_checkable
class Buildable(Protocol):
    """A subject that builds its part only on request."""

    def build(self) -> Any:
        """The part."""


def split(found: Sequence[Check]) -> tuple[list[Check], tuple[Check, ...]]:
    """The checks of parts: (those of every example, those of the class)."""
    return [one for one in found if one.name == "builds"], tuple(one for one in found if one.name != "builds")


def examples_of(cls: Any) -> tuple[Example, ...]:
    """The examples of a class; () if they are invalid, which the check `examples` reports."""
    found = getattr(cls, "examples", ())
    return found if isinstance(found, tuple) and all(isinstance(one, Example) for one in found) else ()


@check("part", "loads", cause=True)
def loads(subject: Subject) -> None:
    """The entry point refers to a concrete class of its kind.

    The value of an entry point is `module:Class`. The module must import with only the distribution's declared
    dependencies; the class must implement every abstract method of its contract in `ldmkit`.
    """
    try:
        subject.cls  # noqa: B018 - it is loaded here
    except LdmkitError as error:
        fail(f"{subject.entry.value} to be a {subject.entry.kind.capitalize()}", str(error))


@check("part", "docstring")
def docstring(subject: Subject) -> None:
    """The class itself has a docstring.

    `ldmkit plugins show` prints its first line: describe inputs and outputs, with shapes.
    """
    text = vars(subject.cls).get("__doc__")
    expect(bool(text and text.strip()), f"a docstring on {subject.cls.__name__}", "none")


@check("part", "examples", cause=True)
def examples(subject: Subject) -> None:
    """`examples` is a tuple of `ldmkit.Example`, each with a valid config.

    The kit builds the part from them, so use configs that build in milliseconds, with small widths and few layers. A
    part whose default config is small enough needs no examples.
    """
    found = getattr(subject.cls, "examples", ()) if subject.chosen is None else subject.chosen
    listed = isinstance(found, tuple) and all(isinstance(one, Example) for one in found)
    expect(listed, "`examples` to be a tuple of ldmkit.Example", f"{found!r:.200}")
    if not found:
        raise NotApplicable("`examples` is (): nothing can be built without files, so nothing else is checked")
    for number, example in enumerate(found):
        _config(subject, number, example)


@check("part", "builds", cause=True)
def builds(subject: Any) -> None:
    """It can be built from each of its examples.

    An exception in `__init__`, or in a validator of the config, is reported here; that example is not checked further.
    """
    if isinstance(subject, Buildable):
        subject.build()


@check("part", "choices")
def choices(subject: Subject) -> str:
    """Every value of a choice in the config is checked: by an example that has it, or by changing an example to it.

    Fields of literals, booleans or enumerations change what is computed, and a bug behind a value that nothing runs is
    found by users. The kit reports the values that it adds to your examples. If they are refused in combination with
    the examples' other fields, add an example that has them. `Example.vary` lists values of numeric fields that also
    change the algorithm, or restricts the values of a choice. Examples of data and stages are not changed, since their
    files are written for them.
    """
    if subject.chosen is not None:
        raise NotApplicable("it is checked only with the given config")
    found = list(not_taken(subject.config, subject.examples))
    refused = [choice for choice in found if choice.example is None]
    if subject.entry.kind not in FIXED:
        which = ", ".join(choice.name for choice in refused)
        expect(not refused, f"an example with {which}", "; ".join(f"{c.name} in {c.refused}" for c in refused))
    said = []
    if found:
        how = "not checked" if subject.entry.kind in FIXED else "checked by changing the first that allows it"
        said.append(f"no example has {', '.join(choice.name for choice in found)}: {how}")
    if others := left_out(subject.config, subject.examples):
        said.append(f"not checked, as Example.vary excludes them: {', '.join(others)}")
    return "; ".join(said)


@check("part", "config-json", cause=True)
def config_json(subject: Subject) -> None:
    """A config is unchanged by conversion to JSON and back, and has a JSON schema.

    Specs and recipes store configs as JSON: fields are numbers, strings, booleans, lists and mappings of these, or
    types with a serialiser whose output their validator accepts. Fields for functions and tensors, which can only be
    given in Python, are declared with `exclude=True`; examples that set one are not converted.
    """
    for number, example in enumerate(subject.examples):
        config = _config(subject, number, example)
        if any(type(config).model_fields[name].exclude for name in example.config):
            continue
        try:
            text = config.model_dump_json()
        except Exception as error:  # types without a serialiser, which only Python can give
            fail(f"examples[{number}].config as JSON", f"{type(error).__name__}: {error}")
        again = type(config).of(json.loads(text), f"examples[{number}]")
        same = again == config or _lists(again.model_dump()) == _lists(config.model_dump())
        expect(same, f"examples[{number}] after conversion to JSON and back: {config!r:.200}", f"{again!r:.200}")
    try:
        json.dumps(subject.config.model_json_schema())
    except Exception as error:
        fail("a JSON schema of the config", f"{type(error).__name__}: {error}")


def _lists(data: Any) -> Any:
    """Plain data with tuples replaced by lists: values of type Any are not converted back to tuples."""
    if isinstance(data, Mapping):
        return {key: _lists(value) for key, value in data.items()}
    return [_lists(value) for value in data] if isinstance(data, (list, tuple)) else data


@check("part", "config-strict")
def config_strict(subject: Subject) -> None:
    """An unknown key in a config raises an `LdmkitError` that names it.

    If a misspelt key were ignored, the wrong model would be trained. `ldmkit.Value` refuses unknown keys by default; do
    not set `extra="allow"` or `"ignore"`.
    """
    for example in subject.examples:
        try:
            subject.config.of({**dict(example.config), "no_such_key": 1})
        except LdmkitError as error:
            expect("no_such_key" in str(error), "an error that names the key 'no_such_key'", str(error))
        else:
            fail("an error for the unknown key 'no_such_key'", "the config was accepted")


def _config(subject: Subject, number: int, example: Example) -> Value:
    where = f"examples[{number}].config"
    expect(isinstance(example.config, Mapping), f"{where} to be a mapping", f"{example.config!r:.200}")
    try:
        return subject.config.of(dict(example.config), where)
    except (LdmkitError, ValidationError) as error:
        fail(f"{where} to be valid", str(error))
