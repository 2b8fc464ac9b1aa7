"""From an installed part to its checks. Free of torch until a part is loaded.

The suite of a kind is the module `ldmkit.testing.<kind>`: importing it registers the kind's checks, and its function
`subject(cls, example)` makes what they take, from a part's class and one of its `examples`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

from ldmkit.contracts.example import Example
from ldmkit.errors import PluginError, suggest
from ldmkit.plugins.catalogue import Entry, catalogue, load_entry
from ldmkit.plugins.installed import normal
from ldmkit.plugins.kinds import GROUPS
from ldmkit.testing import part
from ldmkit.testing.checks import Check, Outcome, Report, checks, home, outcome, run


@dataclass(frozen=True)
class Case:
    """A part in one of its examples (`number` counts from 0), or by itself (None).

    Args:
        make: what the checks take; it is made when the first of them runs.
    """

    entry: Entry
    number: int | None
    checks: tuple[Check, ...]
    make: Callable[[], Any]

    @property
    def name(self) -> str:
        """`kind:name`, with the example's number in brackets."""
        number = "" if self.number is None else f"[{self.number}]"
        return f"{self.entry.kind}:{self.entry.name}{number}"

    @cached_property
    def subject(self) -> Any:
        """What the checks take."""
        return self.make()

    def run(self, one: Check) -> Outcome:
        """One of the checks."""
        return outcome(one, lambda: one.run(self.subject))

    def report(self) -> Report:
        """All of them."""
        return Report(f"{self.name} of {self.entry.dist}", tuple(self.run(one) for one in self.checks))


def check(entry: Entry) -> list[Report]:
    """Check an installed part: one report for the class itself, then one for each of its examples.

    Raises:
        PluginError: `no-suite`.
    """
    return [case.report() for case in cases(entry)]


def cases(entry: Entry) -> list[Case]:
    """What is to be checked of an installed part. A part that cannot be loaded has only that to report.

    Raises:
        PluginError: `no-suite`.
    """
    kit = suite(entry.kind)
    [loads, *others] = checks("part")
    first = run(loads, part.Subject(entry))
    whole = (loads,) if first.status == "failed" else (loads, *others)
    found = [Case(entry, None, whole, lambda: part.Subject(entry))]
    if first.status == "failed":
        return found
    cls = load_entry(entry)
    for number, example in enumerate(part.examples_of(cls)):
        found.append(Case(entry, number, checks(entry.kind), _maker(kit, cls, example)))
    return found


def _maker(kit: ModuleType, cls: type, example: Example) -> Callable[[], Any]:
    return lambda: kit.subject(cls, example)


def suite(kind: str) -> ModuleType:
    """The module with the checks of a kind.

    Raises:
        PluginError: `no-suite`: there is none, or it registers no check, or has no `subject`.
    """
    name = home(kind) if kind in GROUPS else None
    if name is None:
        kinds = ", ".join(sorted(k for k in GROUPS if home(k) is not None))
        raise PluginError("no-suite", f"there are no checks for parts of kind {kind!r}", fits=f"kinds: {kinds}")
    module = import_module(name)
    if not checks(kind) or not callable(getattr(module, "subject", None)):
        what = f"{name} registers no check, or has no function subject(cls, example)"
        raise PluginError("no-suite", what, where=kind)
    return module


def select(name: str) -> list[Entry]:
    """The installed parts that a name means: those of a distribution, or `kind:name`, `dist:name`, or a name.

    A name that parts of several kinds have means all of them.

    Raises:
        PluginError: `unknown`; `no-parts`: the distribution is installed, but registers none.
    """
    parts = [entry for entry in catalogue() if entry.kind in GROUPS]
    found = [entry for entry in parts if normal(entry.dist) == normal(name)]
    found = found or [e for e in parts if name in (f"{e.kind}:{e.name}", e.qualified, e.name)]
    if found:
        return found
    if (version := _version(name)) is not None:
        what = f"the distribution {name} {version} is installed, but registers no part"
        fits = f'[project.entry-points."{GROUPS["conditioner"]}"] in its pyproject.toml, then pip install it again; '
        fits += f"`ldmkit plugins doctor {name}` names entry points that cannot be used"
        raise PluginError("no-parts", what, fits=fits)
    close = suggest(name, {known for e in parts for known in (e.dist, f"{e.kind}:{e.name}")})
    dists = ", ".join(sorted({e.dist for e in parts}))
    fits = close if close.startswith("did") else f"distributions with parts: {dists}; is it installed?"
    raise PluginError("unknown", f"no distribution and no part is called {name!r}", fits=fits)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):
        return None
