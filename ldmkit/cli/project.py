"""`ldmkit check pyproject.toml`: check a plugin before it is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ldmkit.plugins.catalogue import as_installed
from ldmkit.plugins.project import Finding, Project, read_project
from ldmkit.printable import printable


def check_project(path: Path, json: bool) -> int:
    """Check a plugin's project file, and its parts with the contract kit, and print a report; returns the exit code.

    Its parts are imported from the source tree, in this process; nothing is installed.
    """
    from ldmkit.cli.answers import PLUGIN, emit
    from ldmkit.cli.kit import as_data, as_text, checked
    from ldmkit.plugins.kinds import GROUPS

    project = read_project(path)
    broken = {one.part for one in project.findings if one.fault}
    if not json:
        _print(project, path)
    reports: list[dict[str, Any]] = []
    with _importable(project):
        for entry in project.entries:
            if entry.kind not in GROUPS or f"{entry.kind}:{entry.name}" in broken or "" in broken:
                continue
            rows = checked(entry)
            reports.append(as_data(entry, rows))
            if not json:
                print(as_text(entry, rows), flush=True)
    ok = not broken and all(report["ok"] for report in reports)
    if json:
        about = {"distribution": project.name, "version": project.version, "ok": ok}
        emit(about | {"findings": [asdict(one) for one in project.findings], "parts": reports})
    else:
        print(
            f"{len(project.entries)} part(s) declared, {len(reports)} checked: {'all is well' if ok else 'not ready'}"
        )
    return 0 if ok else PLUGIN


def _print(project: Project, path: Path) -> None:
    print(printable(f"{project.name} {project.version} ({path})"))
    for entry in project.entries:
        print(printable(f"  {entry.kind}:{entry.name} = {entry.value}"))
    for one in sorted(project.findings, key=_weight):
        where = f"{one.part} " if one.part else ""
        print(printable(f"  {'fault' if one.fault else 'note'}: {where}[{one.code}] {one.cause}"))
        print(printable(f"    remedy: {one.remedy}"))


def _weight(one: Finding) -> bool:
    return not one.fault


@contextmanager
def _importable(project: Project) -> Iterator[None]:
    """Make the project's modules importable inside the `with` block."""
    before = list(sys.path)
    sys.path[:0] = [str(root) for root in project.roots]
    try:
        with as_installed(project.name, project.entries):
            yield
    finally:
        sys.path[:] = before
