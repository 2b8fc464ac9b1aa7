"""`ldmkit plugins doctor`: diagnose plugins, with causes and remedies."""

from __future__ import annotations

import sys
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldmkit.cli.options import Json
from ldmkit.errors import PluginError, suggest
from ldmkit.plugins.catalogue import catalogue, problems
from ldmkit.plugins.installed import normal
from ldmkit.printable import printable

if TYPE_CHECKING:
    from ldmkit.plugins.doctor.faults import Fault, Seen
    from ldmkit.plugins.doctor.supervisor import Diagnosis

SHOWN = 3
"""Maximum number of failed checks printed per part; `--json` has all."""


def doctor(
    distributions: Annotated[
        list[str] | None, typer.Argument(help="Distributions to examine; default: all third-party ones.")
    ] = None,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Run the parts' checks, or only import them.")] = True,
    in_tree: Annotated[bool, typer.Option("--in-tree", help="Also examine ldmkit's own parts.")] = False,
    slow: Annotated[float, typer.Option(help="Seconds above which an import counts as slow.")] = 1.0,
    limit: Annotated[float, typer.Option(help="Seconds after which an import counts as hanging.")] = 30.0,
    check_limit: Annotated[float, typer.Option(help="Seconds that the checks of one part may take.")] = 300.0,
    json: Json = False,
) -> int:
    """Import and check every third-party plugin, each distribution in a separate process; report what is wrong."""
    from ldmkit.cli.answers import PLUGIN, emit
    from ldmkit.plugins.doctor.supervisor import Limits, diagnose

    names = [_installed(name) for name in distributions or ()]
    found = diagnose(
        names, run=run, in_tree=in_tree, limits=Limits(slow, limit, check_limit), progress=None if json else _progress
    )
    if json:
        emit(_data(found))
    else:
        _print(found)
    return 0 if found.ok else PLUGIN


def _installed(name: str) -> str:
    known = {entry.dist for entry in catalogue()} | {problem.dist for problem in problems()}
    found = next((dist for dist in known if normal(dist) == normal(name)), None)
    if found is None:
        raise PluginError("unknown", f"no distribution {name!r} registers parts or commands", fits=suggest(name, known))
    return found


def _progress(seen: Seen) -> None:
    if sys.stderr.isatty():
        entry = seen.entry
        part = printable(f"{entry.dist}: {entry.kind}:{entry.name}")
        print(f"{part} {'!' if seen.faults else 'ok'}", file=sys.stderr)


def _data(found: Diagnosis) -> dict[str, Any]:
    seen = [
        {
            "part": f"{one.entry.kind}:{one.entry.name}",
            "distribution": one.entry.dist,
            "version": one.entry.version,
            "status": one.status,
            "import_seconds": one.import_seconds,
            "checks_passed": one.checks,
            "faults": len(one.faults),
        }
        for one in found.seen
    ]
    left = [
        {"part": f"{e.kind}:{e.name}", "distribution": e.dist, "version": e.version, "reason": why}
        for e, why in found.left_out
    ]
    return {"ok": found.ok, "faults": [asdict(one) for one in found.faults], "seen": seen, "left_out": left}


def _print(found: Diagnosis) -> None:
    for dist, faults in groupby(found.faults, lambda one: (one.distribution, one.version)):
        print(printable(" ".join(dist)))
        for part, group in groupby(faults, lambda one: one.part):
            _print_part(part, list(group))
    for entry, why in found.left_out:
        print(printable(f"not examined: {entry.kind}:{entry.name} of {entry.dist} {entry.version}: {why}"))
    dists = {one.entry.dist for one in found.seen}
    faulty = {one.distribution for one in found.faults}
    checks = sum(one.checks for one in found.seen)
    print(f"{len(found.seen)} parts of {len(dists)} distributions, {checks} checks passed; ", end="")
    print(f"{len(found.faults)} faults in {len(faulty)} distributions" if faulty else "all is well")


def _print_part(part: str, faults: list[Fault]) -> None:
    for one in faults[:SHOWN]:
        print(f"  {printable(part) + ' ' if part else ''}[{one.code}] {printable(one.cause)}")
        print(f"    remedy: {printable(one.remedy)}")
    if len(faults) > SHOWN:
        print(f"    and {len(faults) - SHOWN} more; --json lists them")
