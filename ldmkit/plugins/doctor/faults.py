"""Faults of installed distributions, and those that their metadata alone show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ldmkit.plugins.catalogue import Status, catalogue, forbidden, leave_out, problems, verdict
from ldmkit.plugins.installed import HOME, Entry
from ldmkit.printable import printable

Found = tuple[str, Status, str, str]
"""Code, status, cause, remedy: what becomes a `Fault` of the entry that is looked at."""

LONGEST = 1000
"""Characters of a cause: what an exception says of itself may be a page."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Args:
        code: what kind of thing, as an error code without its family (`import-failed`), or `name-clash`, `slow-import`,
            `hangs`, `died`, `check-failed` ...
        part: `kind:name` of the entry, "" for the distribution as a whole.
        status: of the part; "ok" where it can be used in spite of the fault.
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
    """What was found out about one entry.

    Args:
        import_seconds: that its import took beyond what ldmkit and torch take themselves; None: it did not end.
        checks: of the contract kit that it passed.
    """

    entry: Entry
    status: Status
    import_seconds: float | None
    checks: int = 0
    faults: tuple[Fault, ...] = field(default=())


def fault(entry: Entry, code: str, status: Status, cause: str, remedy: str = "") -> Fault:
    """A fault of one entry; without a remedy of its own, that of leaving the distribution out."""
    part, said = f"{entry.kind}:{entry.name}", printable(" ".join(cause.split()))
    said = said if len(said) <= LONGEST else f"{said[: LONGEST - 4]} ..."
    return Fault(code, entry.dist, entry.version, part, status, said, remedy or leave_out(entry))


def faults_of_metadata(dists: Sequence[str] | None = None) -> list[Fault]:
    """What can be told without an import, of all distributions or of some."""
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
