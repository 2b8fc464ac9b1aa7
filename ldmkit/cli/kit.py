"""`ldmkit plugins check`: the contract kit's checks of installed parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldmkit.cli.options import Json

if TYPE_CHECKING:
    from ldmkit.plugins.catalogue import Entry
    from ldmkit.testing.checks import Outcome
    from ldmkit.testing.discovery import Case

Rows = list[tuple["Case", "tuple[Outcome, ...]"]]


def check_parts(
    name: Annotated[str, typer.Argument(help="Name, kind:name, dist:name, or a distribution for all of its parts.")],
    json: Json = False,
) -> None:
    """Check parts against their contracts, with each example of each part."""
    from ldmkit.cli.answers import PLUGIN, emit
    from ldmkit.testing.discovery import select

    counts: Counter[str] = Counter()
    described = []
    for entry in select(name):
        rows = checked(entry)
        counts.update(outcome.status for _, outcomes in rows for outcome in outcomes)
        described.append(as_data(entry, rows))
        if not json:
            print(as_text(entry, rows), flush=True)
    if json:
        emit(described)
    else:
        print(f"{len(described)} part(s): {_counted(counts)}")
    if counts["failed"]:
        raise typer.Exit(PLUGIN)


def checked(entry: Entry) -> Rows:
    """Every case of a part, with its outcomes."""
    from ldmkit.testing.discovery import cases

    return [(case, case.report().outcomes) for case in cases(entry)]


def as_text(entry: Entry, rows: Rows) -> str:
    """The outcomes as printed: failures and measurements."""
    from ldmkit.testing.checks import grouped, repeated

    lines = [f"{entry.kind}:{entry.name} of {entry.dist} {entry.version}"]
    for case, outcomes in rows:
        changed = f" with {case.choice.name}" if case.choice else ""
        title = "class" if case.number is None else f"example {case.number}{changed}"
        counts = Counter(outcome.status for outcome in outcomes)
        lines.append(f"  {title:<12}{_counted(counts)}")
        measured = [outcome for outcome in outcomes if outcome.status == "passed" and outcome.came]
        lines += [f"    {outcome.check.name}: {outcome.came}" for outcome in measured]
        for outcome, repeats in grouped(outcome for outcome in outcomes if outcome.status == "failed"):
            why = [repeated(repeats)] if repeats else outcome.check.explanation.splitlines()
            lines += [
                f"    {line}" for line in (*str(outcome).split("\n"), *(f"        {line}".rstrip() for line in why))
            ]
    if len(rows) == 1 and rows[0][1][0].status == "passed":
        lines.append("  its `examples` is (): nothing was built, and the contract of its kind was not checked")
    return "\n".join(lines)


def _counted(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in ("passed", "failed", "skipped") if counts.get(name))


def as_data(entry: Entry, rows: Rows) -> dict[str, Any]:
    """The outcomes for `--json`."""
    found = [
        {
            "example": case.number,
            "with": case.choice.name if case.choice else None,
            "check": f"{outcome.check.kind}-{outcome.check.name}",
            "promise": outcome.check.promise,
            "status": outcome.status,
            "expected": outcome.expected,
            "came": outcome.came,
            "see": outcome.check.docs,
        }
        for case, outcomes in rows
        for outcome in outcomes
    ]
    where = {"distribution": entry.dist, "version": entry.version}
    ok = all(row["status"] != "failed" for row in found)
    return {"kind": entry.kind, "name": entry.name, **where, "ok": ok, "checks": found}
