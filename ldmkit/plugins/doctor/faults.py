"""Faults of installed distributions, including those that can be found from metadata alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ldmkit.plugins.catalogue import Status, catalogue, forbidden, last_resort, problems, verdict
from ldmkit.plugins.installed import HOME, Entry
from ldmkit.printable import printable

Found = tuple[str, Status, str, str]
"""(code, status, cause, remedy) of a `Fault` of the examined entry."""

LONGEST = 1000
"""Maximum length of a cause, because exception messages may be very long."""


@dataclass(frozen=True)
class Fault:
    """One fault of a distribution.

    Args:
        code: an error code without its family (`import-failed`), or `name-clash`, `slow-import`, `hangs`, `died`,
            `check-failed` ...
        part: `kind:name` of the entry, "" for the distribution as a whole.
        status: status of the part; "ok" if it can be used in spite of the fault.
    """

    code: str
    distribution: str
    version: str
    part: str
    status: Status
    cause: str
    remedy: str


@dataclass(frozen=True)
class Seen:
    """The result of examining one entry.

    Args:
        import_seconds: duration of its import, without that of ldmkit and torch; None if it did not finish.
        checks: number of contract-kit checks that it passed.
    """

    entry: Entry
    status: Status
    import_seconds: float | None
    checks: int = 0
    faults: tuple[Fault, ...] = field(default=())


def fault(entry: Entry, code: str, status: Status, cause: str, remedy: str = "") -> Fault:
    """A fault of one entry; the default remedy is to upgrade or disable the distribution."""
    part, text = f"{entry.kind}:{entry.name}", printable(" ".join(cause.split()))
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."
    return Fault(code, entry.dist, entry.version, part, status, text, remedy or last_resort(entry))


def faults_of_metadata(dists: Sequence[str] | None = None) -> list[Fault]:
    """Faults that can be found without an import, for all distributions or for `dists`."""
    found: list[Fault] = []
    for problem in problems():
        if forbidden(problem) is not None:
            continue
        status: Status = "failed" if problem.left_out else "ok"
        about = (problem.dist, problem.version, problem.name)
        found.append(Fault(problem.flaw, *about, status, printable(problem.cause), problem.remedy))
    entries = catalogue()
    for entry in entries:
        judged = verdict(entry)
        if judged.status == "incompatible":
            found.append(fault(entry, "incompatible", judged.status, judged.reason, judged.remedy))
        elif entry.dist != HOME and judged.status == "ok" and judged.reason:
            found.append(fault(entry, "name-clash", "ok", judged.reason, judged.remedy))
    return [one for one in found if dists is None or one.distribution in dists]
