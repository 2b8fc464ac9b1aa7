"""Checks: how they are defined, registered per kind, run and reported."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal, NoReturn, TypeAlias, TypeVar

from ldmkit.errors import LdmkitError, PluginError
from ldmkit.plugins.kinds import GROUPS

Status: TypeAlias = Literal["passed", "failed", "skipped"]

PAGE = "docs/contracts.md"
"""The page that explains every check, generated from the checks' docstrings."""


class Failed(AssertionError):
    """A part breaks its kind's contract.

    Args:
        expected: what the contract promises, for this part and input.
        came: what was observed instead.
    """

    def __init__(self, expected: str, came: str):
        super().__init__(f"expected {expected}; got {came}")
        self.expected, self.came = expected, came


class NotApplicable(Exception):
    """A check does not apply to this part (a part without weights has no gradients); the message is the reason."""


@dataclass(frozen=True)
class Check:
    """One promise of a kind's contract, and how to test it.

    Args:
        kind: kind of the parts.
        name: unique within the kind, such as `null-shape`.
        promise: the promise in one line.
        explanation: why it matters, and how to fix a part that breaks it.
        run: raises `Failed` or `NotApplicable` for a subject (see the suite's `subject`). It may return a text with
            what it measured.
        cause: whether a failure makes later checks fail with meaningless messages: if it fails, they are not run.
    """

    kind: str
    name: str
    promise: str
    explanation: str
    run: Callable[[Any], str | None]
    cause: bool = False

    @property
    def docs(self) -> str:
        """Where the check is explained."""
        return f"{PAGE}#{self.kind}-{self.name}"


@dataclass(frozen=True)
class Outcome:
    """The result of one check of one part; `came` is what was observed or measured, or why it was skipped.

    `error` is an unexpected exception raised by the part. `example` names the example or variant, unless it is the
    first one.
    """

    check: Check
    status: Status
    expected: str = ""
    came: str = ""
    error: BaseException | None = field(default=None, compare=False, repr=False)
    example: str = ""

    def __str__(self) -> str:
        line = f"{self.status:<8}{self.check.kind}-{self.check.name}: {self.check.promise}"
        if self.status != "failed":
            return f"{line} ({self.came})" if self.came else line
        rows = [f"expected: {self.expected}", f"got:      {self.came}", f"see:      {self.check.docs}"]
        rows[:0] = [f"with:     {self.example}"] if self.example else []
        return "\n        ".join((line, *rows))


@dataclass(frozen=True)
class Report:
    """All outcomes for one part and configuration."""

    subject: str
    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The failed checks."""
        return tuple(o for o in self.outcomes if o.status == "failed")

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    def __str__(self) -> str:
        lines = [self.subject]
        for one, repeats in grouped(self.outcomes):
            lines += [f"  {line}" for line in str(one).split("\n")]
            lines += [f"          {repeated(repeats)}"] if repeats else []
        return "\n".join(lines)

    def require(self) -> Report:
        """Return the report itself, unless a check failed.

        Raises:
            AssertionError: a check failed; the message reports the failures.
        """
        if not self.ok:
            raise AssertionError(str(Report(self.subject, self.failures)))
        return self


def grouped(outcomes: Iterable[Outcome]) -> list[tuple[Outcome, tuple[str, ...]]]:
    """Outcomes, each with the names of further checks that failed with the same error, which are left out.

    A part that cannot be built fails all checks, for a single reason.
    """
    found: dict[Any, list[Outcome]] = {}
    for one in outcomes:
        key = one.came if one.error is not None else (one.check.kind, one.check.name, one.example)
        found.setdefault(key, []).append(one)
    return [(first, tuple(one.check.name for one in rest)) for first, *rest in found.values()]


def repeated(names: Sequence[str]) -> str:
    """A note on further checks that failed with the same error."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"the same error in {', '.join(names[:4])}{more}"


_CHECKS: dict[str, dict[str, Check]] = {}

CheckRun = TypeVar("CheckRun", bound=Callable[[Any], str | None])


def check(kind: str, name: str, cause: bool = False) -> Callable[[CheckRun], CheckRun]:
    """Register a function as a check of a kind. The first line of its docstring is the promise; the rest explains it.

    Args:
        cause: see `Check`.
    """

    def register(function: CheckRun) -> CheckRun:
        promise, _, explanation = (inspect.getdoc(function) or "").partition("\n")
        if not promise:
            raise TypeError(f"check {kind}-{name} has no docstring")
        _CHECKS.setdefault(kind, {})[name] = Check(kind, name, promise.strip(), explanation.strip(), function, cause)
        return function

    return register


def checks(kind: str) -> tuple[Check, ...]:
    """Run all checks of a kind: causes first, then the others, in the order of their registration."""
    return tuple(sorted(_CHECKS.get(kind, {}).values(), key=lambda one: not one.cause))


def home(kind: str) -> str | None:
    """The module whose import registers the checks of a kind: `ldmkit.testing.<kind>`, or `.checks` in that package.

    None: there is no such module.
    """
    name = f"ldmkit.testing.{kind}"
    spec = find_spec(name)
    if spec is None:
        return None
    return name if spec.submodule_search_locations is None else f"{name}.checks"


def suite(kind: str) -> ModuleType:
    """The module with the checks of a kind.

    Raises:
        PluginError: `no-suite`: there is no such module, it registers no check, or it has no `subject`.
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


def run(one: Check, subject: Any) -> Outcome:
    """Run one check. An exception other than `Failed` and `NotApplicable` is a failure too."""
    return outcome(one, lambda: one.run(subject))


def outcome(one: Check, call: Callable[[], str | None]) -> Outcome:
    """The outcome of a check that `call` runs."""
    try:
        measured = call()
    except Failed as broken:
        return Outcome(one, "failed", broken.expected, broken.came)
    except NotApplicable as reason:
        return Outcome(one, "skipped", came=str(reason))
    except (Exception, SystemExit) as error:
        return Outcome(one, "failed", "no error", told(error), error)
    return Outcome(one, "passed", came=measured or "")


def fail(expected: str, came: str) -> NoReturn:
    """Fail the check: the part breaks its promise."""
    raise Failed(expected, came)


def expect(holds: bool, expected: str, came: str) -> None:
    """Fail unless `holds`."""
    if not holds:
        fail(expected, came)


def place(error: BaseException) -> str:
    """File and line of the part's own code in which an unexpected error was raised."""
    frames = [f for f in _frames(error) if not any(part in f[0].replace("\\", "/") for part in _OTHERS)]
    return f"{frames[-1][0]}:{frames[-1][1]}: " if frames else ""


def told(error: BaseException) -> str:
    """An unexpected error in one line: location in the part's own code, class, and message."""
    return str(error) if isinstance(error, LdmkitError) else f"{place(error)}{type(error).__name__}: {error}"


_OTHERS = ("/ldmkit/testing/", "/site-packages/torch/")
"""Folders whose code is not the part's own."""


def _frames(error: BaseException) -> Iterator[tuple[str, int]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
