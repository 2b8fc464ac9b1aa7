"""`pytest --ldmkit NAME`: the contract kit's checks as test items. Imports torch only if the option is given."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ldmkit.errors import LdmkitError

if TYPE_CHECKING:
    from ldmkit.plugins.catalogue import Entry
    from ldmkit.testing.checks import Check, Outcome
    from ldmkit.testing.discovery import Case


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--ldmkit`, which may be given several times."""
    parser.getgroup("ldmkit").addoption(
        "--ldmkit",
        action="append",
        default=[],
        metavar="NAME",
        help="check the installed parts of a distribution (or one part: kind:name) against ldmkit's contracts; "
        "without paths, nothing else is run",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Report names that are not installed as a usage error, before anything is collected."""
    if not config.getoption("--ldmkit"):
        return
    from ldmkit.testing.discovery import select

    for name in config.getoption("--ldmkit"):
        try:
            select(name)
        except LdmkitError as error:
            raise pytest.UsageError(f"--ldmkit {name}: {error}") from None
    if _asked_alone(config):
        config.args = []


def _asked_alone(config: pytest.Config) -> bool:
    """Whether `--ldmkit` was given on the command line without paths: then only the kit runs, and no other tests.

    If it is set in a configuration file, the kit's checks are added to the tests.
    """
    typed = any(str(word).startswith("--ldmkit") for word in config.invocation_params.args)
    return typed and config.args_source != config.ArgsSource.ARGS


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add one item per part, example and check; `-k` and the like select among them as usual."""
    names = list(dict.fromkeys(config.getoption("--ldmkit")))
    if not names:
        return
    from ldmkit.testing.discovery import select

    entries = dict.fromkeys(entry for name in names for entry in select(name))
    items.extend(item for entry in entries for item in _items(session, entry))


def _items(session: pytest.Session, entry: Entry) -> Iterator[pytest.Item]:
    from ldmkit.testing.discovery import cases

    root = f"ldmkit:{entry.dist}"
    home = Distribution.from_parent(session, name=root, nodeid=root, path=session.path)
    try:
        found = cases(entry)
    except LdmkitError as error:
        broken: pytest.Item = Unchecked.from_parent(home, name=f"{entry.kind}:{entry.name}", error=error)
        yield broken
        return
    for case in found:
        node: Any = PartChecks.from_parent(home, name=case.name)
        for one in case.checks:
            name = f"{one.kind}-{one.name}" if case.number is None else one.name
            item: pytest.Item = CheckItem.from_parent(node, name=name, case=case, one=one)
            yield item


class Broken(Exception):
    """A check failed; carries its outcome."""

    def __init__(self, outcome: Outcome):
        super().__init__(str(outcome))
        self.outcome = outcome


class Distribution(pytest.Collector):
    """A distribution in pytest's tree."""

    def collect(self) -> list[pytest.Item]:
        """Nothing: the items are made with it."""
        return []


class PartChecks(pytest.Collector):
    """A part with one of its examples, in pytest's tree."""

    def collect(self) -> list[pytest.Item]:
        """Nothing: the items are made with it."""
        return []


class Unchecked(pytest.Item):
    """A failing item for a part that cannot be checked."""

    def __init__(self, *, error: LdmkitError, **rest: Any):
        super().__init__(**rest)
        self.error = error

    def runtest(self) -> None:
        """Fail with the reason."""
        raise self.error

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """Only the reason."""
        return str(excinfo.value)


class CheckItem(pytest.Item):
    """One check of one part and example."""

    def __init__(self, *, case: Case, one: Check, **rest: Any):
        super().__init__(**rest)
        self.case, self.one = case, one

    def runtest(self) -> None:
        """Run the check; if it does not apply, skip it with the reason.

        After a failed cause, nothing is run. If the cause was not among the selected items, the first item after it
        fails in its place.
        """
        cause = self.case.cause(self.one)
        if cause is not None and cause.check.name not in self.case.told:
            self.case.told.add(cause.check.name)
            raise Broken(cause)
        outcome = self.case.run(self.one)
        if outcome.status == "failed":
            self.case.told.add(self.one.name)
            raise Broken(outcome)
        if outcome.status == "skipped":
            pytest.skip(outcome.came)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """The promise, what was expected and observed, and where it is explained; a traceback if the part raised."""
        if not isinstance(excinfo.value, Broken):
            return str(super().repr_failure(excinfo))
        outcome = excinfo.value.outcome
        one = outcome.check
        lines = [
            f"{one.kind}-{one.name}: {one.promise}",
            *([f"  {line}" for line in one.explanation.splitlines()]),
            f"expected: {outcome.expected}",
            f"got:      {outcome.came}",
            f"see:      {one.docs}",
        ]
        if outcome.error is not None and self.config.getoption("tbstyle") != "no":
            lines += ["", _trace(outcome.error)]
        return "\n".join(lines)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """File and line of the part's class, so that a failure leads there."""
        from ldmkit.plugins.catalogue import load_entry

        try:
            cls = load_entry(self.case.entry)
            return Path(inspect.getsourcefile(cls) or self.path), inspect.getsourcelines(cls)[1] - 1, self.name
        except (LdmkitError, TypeError, OSError):
            return self.path, None, self.name


_HIDDEN = ("/ldmkit/testing/", "/torch/nn/modules/")
"""Code between the kit and a part, omitted from tracebacks."""


def _trace(error: BaseException) -> str:
    """The traceback of an error inside a part, without the kit's own frames."""
    shown = traceback.TracebackException.from_exception(error)
    own = [f for f in shown.stack if not any(part in f.filename.replace("\\", "/") for part in _HIDDEN)]
    if own:
        shown.stack = traceback.StackSummary.from_list(own)
    return "".join(shown.format()).rstrip()
