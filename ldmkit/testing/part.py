"""What every part promises, of whatever kind: it loads, says what it is, and its config travels as JSON."""

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
    """A part: an installed one, or a class that was handed in.

    Args:
        given: the class, where it is not that of an installed part.
        chosen: examples in place of the class's own.
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
        """What its configurations are: the class itself, for values."""
        found = self.cls.Config if self.entry.kind in CONFIGURED else self.cls
        if not (inspect.isclass(found) and issubclass(found, Value)):
            fail("`Config` to be a subclass of ldmkit.Value", f"{found!r}")
        return found

    @property
    def examples(self) -> tuple[Example, ...]:
        """What it is checked in."""
        return examples_of(self.cls) if self.chosen is None else self.chosen

    @cached_property
    def varied(self) -> tuple[Choice, ...]:
        """Choices that none of its examples takes; none of data and stages, whose files are those of their examples."""
        return () if self.entry.kind in FIXED else tuple(not_taken(self.config, self.examples))


FIXED = ("data", "stage")
"""Kinds whose examples read files that were written for them, so that the kit cannot change them."""


@runtime_checkable
class Buildable(Protocol):
    """What the checks of a kind take, where it is not built when it is made."""

    def build(self) -> Any:
        """The part."""


def split(found: Sequence[Check]) -> tuple[list[Check], tuple[Check, ...]]:
    """The checks of parts: those of every example, and those of the class."""
    return [one for one in found if one.name == "builds"], tuple(one for one in found if one.name != "builds")


def examples_of(cls: Any) -> tuple[Example, ...]:
    """The examples of a class; () where they are not what they should be, which is a check of its own."""
    found = getattr(cls, "examples", ())
    return found if isinstance(found, tuple) and all(isinstance(one, Example) for one in found) else ()


@check("part", "loads", cause=True)
def loads(subject: Subject) -> None:
    """The entry point leads to a concrete class of its kind.

    The value of an entry point is `module:Class`. Importing the module must work with nothing but the distribution's
    declared dependencies; the class implements every abstract method of its contract in `ldmkit`.
    """
    try:
        subject.cls  # noqa: B018 - it is loaded here
    except LdmkitError as error:
        fail(f"{subject.entry.value} to be a {subject.entry.kind.capitalize()}", str(error))


@check("part", "docstring")
def docstring(subject: Subject) -> None:
    """The class has a docstring of its own.

    Its first line is what `ldmkit plugins show` prints: say what comes in and what comes out, with shapes.
    """
    text = vars(subject.cls).get("__doc__")
    expect(bool(text and text.strip()), f"a docstring on {subject.cls.__name__}", "none")


@check("part", "examples", cause=True)
def examples(subject: Subject) -> None:
    """`examples` is a tuple of `ldmkit.Example`, each with a valid config.

    The kit builds the part from them: configurations that take milliseconds to build, small widths and few layers.
    A part whose config has defaults that are small enough needs none of its own.
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

    An exception in `__init__`, or in a validator of the config, is told here; nothing else is checked of that example.
    """
    if isinstance(subject, Buildable):
        subject.build()


@check("part", "choices")
def choices(subject: Subject) -> str:
    """Every value of a choice in the config is checked: those that no example takes, in an example changed to it.

    A field of literals, booleans or an enumeration changes what is computed, and a fault behind a value that nothing
    runs is found by users. The kit names the values that it adds to your examples. Where they are refused together with
    what else the examples say, give an example that has them. `Example.vary` names values of numeric fields that
    change the algorithm as well, or fewer values than a choice has. Examples of data and stages, whose files are
    written for them, are not changed.
    """
    if subject.chosen is not None:
        raise NotApplicable("it is checked with the given config alone")
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
        said.append(f"not checked, as Example.vary leaves them out: {', '.join(others)}")
    return "; ".join(said)


@check("part", "config-json", cause=True)
def config_json(subject: Subject) -> None:
    """A config is the same after a trip through JSON, and has a JSON schema.

    Specs and recipes keep configs as JSON: fields are numbers, text, booleans, lists and mappings
    of these, or types with a serialiser that their validator reads back. Fields for functions and tensors, which only
    Python can give, say `exclude=True`; an example with one of them is not taken on the trip.
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
        expect(same, f"examples[{number}] after a trip through JSON: {config!r:.200}", f"{again!r:.200}")
    try:
        json.dumps(subject.config.model_json_schema())
    except Exception as error:
        fail("a JSON schema of the config", f"{type(error).__name__}: {error}")


def _lists(data: Any) -> Any:
    """Plain data with lists for tuples: mappings of anything do not know that they held a tuple."""
    if isinstance(data, Mapping):
        return {key: _lists(value) for key, value in data.items()}
    return [_lists(value) for value in data] if isinstance(data, (list, tuple)) else data


@check("part", "config-strict")
def config_strict(subject: Subject) -> None:
    """An unknown key in a config is an `LdmkitError` that names it.

    A misspelt key that is ignored trains the wrong model. `ldmkit.Value` refuses them as it is; do not set
    `extra="allow"` or `"ignore"`.
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
