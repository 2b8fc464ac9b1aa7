"""Cases: a class, each of its examples, and variants of these. They define what is checked, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ldmkit.contracts.example import Example
from ldmkit.plugins.admission import check_part
from ldmkit.plugins.installed import Entry
from ldmkit.testing import part
from ldmkit.testing.checks import Check, Outcome, Report, checks, outcome, suite
from ldmkit.testing.choices import Choice

HERE = "this process"
"""Distribution of a class that was passed directly."""


@dataclass
class Case:
    """A part in one of its examples (`number`, from 0), or the class itself (None).

    Args:
        make: makes the subject of the checks; called when the first of them runs.
        choice: the choice by which the example was changed.
        first: the case whose causes precede this one's: the class itself.
        told: names of causes that were reported as failures, shared by the cases of a part.
    """

    entry: Entry
    number: int | None
    checks: tuple[Check, ...]
    make: Callable[[], Any]
    choice: Choice | None = None
    first: Case | None = None
    told: set[str] = field(default_factory=set)
    _found: dict[str, Outcome] = field(default_factory=dict)

    @property
    def example(self) -> str:
        """In words: `examples[1]`, `examples[0] with end=zero`; "" for the class itself."""
        if self.number is None:
            return ""
        return f"examples[{self.number}]" + (f" with {self.choice.name}" if self.choice else "")

    @property
    def name(self) -> str:
        """`kind:name`, with the example's number in brackets, and what was changed in it."""
        changed = f",{self.choice.name}" if self.choice else ""
        number = "" if self.number is None else f"[{self.number}{changed}]"
        return f"{self.entry.kind}:{self.entry.name}{number}"

    @cached_property
    def subject(self) -> Any:
        """The subject of the checks."""
        return self.make()

    def cause(self, before: Check | None = None) -> Outcome | None:
        """The first failed cause, of those before a check, or of all."""
        if self.first is not None and (found := self.first.cause()) is not None:
            return found
        for one in self.checks:
            if one is before:
                return None
            if one.cause and _explains(found := self._run(one)):
                return found
        return None

    def run(self, one: Check) -> Outcome:
        """Run one check; it is skipped if a preceding cause failed."""
        found = self.cause(one)
        if found is None:
            return self._run(one)
        return Outcome(one, "skipped", came=f"not run: {found.check.kind}-{found.check.name} failed")

    def _run(self, one: Check) -> Outcome:
        key = f"{one.kind}-{one.name}"
        if key not in self._found:
            self._found[key] = outcome(one, lambda: one.run(self.subject))
        return self._found[key]

    def report(self) -> Report:
        """Run all checks."""
        return Report(f"{self.name} of {self.entry.dist}", tuple(self.run(one) for one in self.checks))


def _explains(found: Outcome) -> bool:
    """Whether a cause itself failed. One that could not run is a consequence of another failure."""
    return found.status == "failed" and (found.error is None or found.check.name == "builds")


def cases_of(entry: Entry, examples: Sequence[Example] | None = None, cls: Any = None) -> list[Case]:
    """The cases of a part: the class itself, every example, and every choice that no example covers.

    Args:
        examples: examples to check instead of the class's own and their variants.
        cls: its class, if it is not an installed part.

    Raises:
        PluginError: `no-suite`.
    """
    kit = suite(entry.kind)
    subject = part.Subject(entry, cls, None if examples is None else tuple(examples))
    [builds], ofclass = part.split(checks("part"))
    whole = Case(entry, None, ofclass, lambda: subject)
    if whole.cause() is not None:
        return [whole]
    found = [whole]
    each = (builds, *checks(entry.kind))
    for number, example in enumerate(subject.examples):
        found.append(Case(entry, number, each, _maker(kit, subject.cls, example)))
    for choice in subject.varied if examples is None else ():
        if choice.example is not None:
            make = _maker(kit, subject.cls, choice.example)
            found.append(Case(entry, choice.number, each, make, choice))
    return [whole, *(replace(case, first=whole, told=whole.told) for case in found[1:])]


def _maker(kit: Any, cls: type, example: Example) -> Callable[[], Any]:
    return lambda: kit.subject(cls, example)


def check_class(kind: str, cls: Any, example: Example | None = None) -> Report:
    """Run all checks of a class, as one report.

    Args:
        example: the example to check; None: its own examples, and every choice that they do not cover.

    Raises:
        PluginError: it is not a valid class of that kind.
        ValueError: it has no examples, and none is given.
    """
    module, name = getattr(cls, "__module__", "?"), getattr(cls, "__qualname__", repr(cls))
    entry = Entry(kind, getattr(cls, "__name__", repr(cls)), f"{module}:{name}", HERE, "")
    check_part(entry, cls, f"check_{kind}")
    if example is None and not part.examples_of(cls):
        raise ValueError(f"{cls.__name__} has no examples: give a config")
    found = cases_of(entry, None if example is None else (example,), cls)
    outcomes = [
        replace(case.run(one), example=case.example if case.number or case.choice else "")
        for case in found
        for one in case.checks
    ]
    return Report(cls.__name__, tuple(outcomes))
