"""What a check is, how checks of a kind are registered, run and reported."""

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
"""The page that explains every check, generated from their docstrings."""


class Failed(AssertionError):
    """A part breaks a promise of its kind.

    Args:
        expected: what the contract promises, for this part and input.
        came: what was found instead.
    """

    def __init__(self, expected: str, came: str):
        super().__init__(f"expected {expected}; came {came}")
        self.expected, self.came = expected, came


class NotApplicable(Exception):
    """The promise says nothing about this part (a part without weights has no gradients); the reason is its text."""


@dataclass(frozen=True)
class Check:
    """One promise of a kind, and how to test it.

    Args:
        kind: of part.
        name: unique within the kind, such as `null-shape`.
        promise: the promise in one line.
        explanation: why it matters, and what to do about a part that breaks it.
        run: raises `Failed` or `NotApplicable` for a subject (what the suites of a kind hand to their checks). It may
            return what it measured.
        cause: whether a part that fails it fails others as well, with messages that say nothing: where it failed, what
            comes after it is not run.
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
    """What came of one check of one part; `came` is what one found or measured, or why it was skipped.

    `error` is the exception of a part that raised one where none was expected. `example` says of which example or
    variant, where it is not the first one.
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
        rows = [f"expected: {self.expected}", f"came:     {self.came}", f"see:      {self.check.docs}"]
        rows[:0] = [f"with:     {self.example}"] if self.example else []
        return "\n        ".join((line, *rows))


@dataclass(frozen=True)
class Report:
    """All outcomes for one part and configuration."""

    subject: str
    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """Those that failed."""
        return tuple(o for o in self.outcomes if o.status == "failed")

    @property
    def ok(self) -> bool:
        """Whether none failed."""
        return not self.failures

    def __str__(self) -> str:
        lines = [self.subject]
        for one, repeats in grouped(self.outcomes):
            lines += [f"  {line}" for line in str(one).split("\n")]
            lines += [f"          {repeated(repeats)}"] if repeats else []
        return "\n".join(lines)

    def require(self) -> Report:
        """Itself.

        Raises:
            AssertionError: a check failed; the text is the report of those that did.
        """
        if not self.ok:
            raise AssertionError(str(Report(self.subject, self.failures)))
        return self


def grouped(outcomes: Iterable[Outcome]) -> list[tuple[Outcome, tuple[str, ...]]]:
    """Outcomes, each with the names of further checks that ended by the very same error; those are left out.

    A part that cannot even be built fails in all checks, for one reason.
    """
    found: dict[Any, list[Outcome]] = {}
    for one in outcomes:
        key = one.came if one.error is not None else (one.check.kind, one.check.name, one.example)
        found.setdefault(key, []).append(one)
    return [(first, tuple(one.check.name for one in rest)) for first, *rest in found.values()]


def repeated(names: Sequence[str]) -> str:
    """What to say of further checks that ended by the same error."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"the same error in {', '.join(names[:4])}{more}"


_CHECKS: dict[str, dict[str, Check]] = {}

CheckRun = TypeVar("CheckRun", bound=Callable[[Any], str | None])


def check(kind: str, name: str, cause: bool = False) -> Callable[[CheckRun], CheckRun]:
    """Register a function as a check of a kind. Its docstring's first line is the promise, the rest explains it.

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
    """All checks of a kind: causes first, then the others, in the order of their registration."""
    return tuple(sorted(_CHECKS.get(kind, {}).values(), key=lambda one: not one.cause))


def home(kind: str) -> str | None:
    """The module that registers the checks of a kind: `ldmkit.testing.<kind>`, or `.checks` in a folder; None: no such.

    Importing it registers all of them.
    """
    name = f"ldmkit.testing.{kind}"
    spec = find_spec(name)
    if spec is None:
        return None
    return name if spec.submodule_search_locations is None else f"{name}.checks"


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


def run(one: Check, subject: Any) -> Outcome:
    """One check. An exception that is neither `Failed` nor `NotApplicable` is a failure as well."""
    return outcome(one, lambda: one.run(subject))


def outcome(one: Check, call: Callable[[], str | None]) -> Outcome:
    """What comes of a check when `call` runs it."""
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
    """The part breaks its promise."""
    raise Failed(expected, came)


def expect(holds: bool, expected: str, came: str) -> None:
    """Fail unless `holds`."""
    if not holds:
        fail(expected, came)


def place(error: BaseException) -> str:
    """File and line of the part's own code in which an unexpected error arose."""
    frames = [f for f in _frames(error) if not any(part in f[0].replace("\\", "/") for part in _OTHERS)]
    return f"{frames[-1][0]}:{frames[-1][1]}: " if frames else ""


def told(error: BaseException) -> str:
    """An unexpected error in one line: where in the part's own code, its class, what it says."""
    return str(error) if isinstance(error, LdmkitError) else f"{place(error)}{type(error).__name__}: {error}"


_OTHERS = ("/ldmkit/testing/", "/site-packages/torch/")
"""Code that is not the part's."""


def _frames(error: BaseException) -> Iterator[tuple[str, int]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
