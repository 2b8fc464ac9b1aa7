"""The listing of `ldmkit plugins`, without Typer, whose import takes longer than the listing itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from ldmkit.errors import PluginError, suggest
from ldmkit.plugins.catalogue import Verdict, catalogue, forbidden, load_entry, problems, verdict
from ldmkit.plugins.installed import HOME, Entry
from ldmkit.plugins.kinds import GROUPS
from ldmkit.plugins.origin import origin
from ldmkit.printable import printable


def quick(arguments: list[str]) -> bool:
    """Run `[--safe-mode] [--allow X] [--deny X] plugins [--kind X] [--by-distribution] [--json]`, and nothing else.

    Returns:
        Whether the arguments were of this form.
    """
    settings: dict[str, list[str]] = {"--allow": [], "--deny": []}
    words = iter(arguments)
    safe = False
    for word in words:
        if word == "plugins":
            break
        if word in settings and (value := next(words, None)) is not None:
            settings[word].append(value)
        elif word == "--safe-mode":
            safe = True
        else:
            return False
    else:
        return False
    kind, json, grouped = None, False, False
    for word in words:
        if word == "--json":
            json = True
        elif word == "--by-distribution":
            grouped = True
        elif word == "--kind" and (value := next(words, None)) is not None:
            kind = value
        else:
            return False
    set_environment(safe, settings["--allow"], settings["--deny"])
    print_listing(kind, load=False, json=json, grouped=grouped)
    return True


def set_environment(safe_mode: bool, allow: list[str], deny: list[str]) -> None:
    """Set the environment variables that the catalogue reads from the options before a command."""
    given = {"LDMKIT_SAFE_MODE": "1" if safe_mode else "", "LDMKIT_PLUGINS_ALLOW": ",".join(allow)}
    for variable, value in {**given, "LDMKIT_PLUGINS_DENY": ",".join(deny)}.items():
        if value:
            os.environ[variable] = value


def print_listing(kind: str | None, *, load: bool, json: bool, grouped: bool = False) -> None:
    """Print every entry with its status, and metadata that could not be read.

    Raises:
        PluginError: `unknown-kind`.
    """
    from ldmkit.cli.answers import emit

    known = {*GROUPS, *(entry.kind for entry in catalogue())}
    if kind is not None and kind not in known:
        raise PluginError("unknown-kind", f"there is no kind {kind!r}", fits=suggest(kind, known))
    rows = [row(entry, tried(entry) if load else verdict(entry)) for entry in catalogue()]
    rows = [found for found in (*rows, *_left_out()) if kind in (None, found["kind"])]
    places = {name: origin(name) for name in {found["distribution"] for found in rows}}
    if json:
        emit([found | {"origin": places[found["distribution"]]} for found in rows])
        return
    if grouped:
        _print_grouped(rows, places)
        return
    width = max((len(printable(found["name"])) for found in rows), default=0)
    for found in rows:
        note = "; ".join(found[key] for key in ("reason", "remedy") if found[key])
        where = printable(f"{found['distribution']} {found['version']}{'  ' if note else ''}{note}")
        name = printable(found["name"])
        print(f"{printable(found['kind']):<12}{name:<{width + 2}}{found['status']:<13}{where}")
    if faulty := sorted({p.dist for p in problems() if forbidden(p) is None}):
        print(f"see `ldmkit plugins doctor`: {', '.join(map(printable, faulty))}", file=sys.stderr)


def _print_grouped(rows: list[dict[str, Any]], places: dict[str, str]) -> None:
    """Print distributions with version and origin, and the parts of each by kind."""
    dists = {(found["distribution"], found["version"]): None for found in rows}
    for dist, version in sorted(dists, key=lambda about: (about[0] != HOME, about)):
        print(printable(f"{dist} {version}  {places[dist]}"))
        mine = [found for found in rows if (found["distribution"], found["version"]) == (dist, version)]
        for kind in dict.fromkeys(found["kind"] for found in mine):
            names = [_marked(found) for found in mine if found["kind"] == kind]
            print(printable(f"  {kind:<12}{', '.join(names)}"))


def _marked(found: dict[str, Any]) -> str:
    why = f": {found['reason']}" if found["reason"] else ""
    return str(found["name"]) if found["status"] == "ok" and not why else f"{found['name']} ({found['status']}{why})"


def tried(entry: Entry) -> Verdict:
    """The verdict after importing the entry."""
    try:
        load_entry(entry)
    except PluginError as error:
        judged = verdict(entry)
        return judged if judged.status != "ok" else Verdict("failed", error.what, error.fits or "")
    return verdict(entry)


def row(entry: Entry, judged: Verdict) -> dict[str, Any]:
    """One line of the listing, for programs."""
    where = {"distribution": entry.dist, "version": entry.version, "value": entry.value}
    status = {"status": judged.status, "reason": judged.reason, "remedy": judged.remedy}
    return {"kind": entry.kind, "name": entry.name, **where, **status}


def _left_out() -> Iterator[dict[str, Any]]:
    for problem in problems():
        if problem.left_out:
            entry = Entry("unreadable", problem.name, "", problem.dist, problem.version)
            why = forbidden(problem)
            yield row(
                entry, Verdict("failed", problem.cause, problem.remedy) if why is None else Verdict("disabled", why)
            )
