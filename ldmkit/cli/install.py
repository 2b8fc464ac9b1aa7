"""`ldmkit install` and `ldmkit uninstall`: plugins in the environment that ldmkit runs in."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from ldmkit.errors import InputError, PluginError, suggest
from ldmkit.plugins.installed import HOME, Entry, normal
from ldmkit.printable import printable

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print the command.")]


def install(
    words: Annotated[
        list[str],
        typer.Argument(help="Names, paths or addresses; after --, options for pip.", metavar="DIST_OR_PATH..."),
    ],
    dry_run: DryRun = False,
) -> int:
    """Install plugins into the environment of this interpreter, then examine them and list their parts.

    Options after -- are passed to pip: ldmkit install ./my-parts -- --no-deps --no-index
    """
    from ldmkit.plugins.catalogue import catalogue, refresh
    from ldmkit.plugins.installing import install_command, remark

    wanted, options = _divided(words)
    for word in wanted:
        _check_wanted(word)
    before = {*catalogue()}
    code = _run(install_command(wanted, options), dry_run)
    if (said := remark()) is not None:
        print(f"note: {printable(said)}", file=sys.stderr)
    if code or dry_run:
        return code
    refresh()
    return _examined([entry for entry in catalogue() if entry not in before], before)


def uninstall(
    words: Annotated[
        list[str], typer.Argument(help="Installed distributions; after --, options for pip.", metavar="DIST...")
    ],
    dry_run: DryRun = False,
) -> int:
    """Remove plugins from the environment of this interpreter."""
    from ldmkit.plugins.catalogue import catalogue, problems, refresh
    from ldmkit.plugins.installing import uninstall_command

    names, options = _divided(words)
    dists = [*(one.dist for one in problems()), *(one.dist for one in catalogue())]
    known = {normal(dist): dist for dist in dists if dist != HOME}
    for name in names:
        if normal(name) not in known:
            what = f"no plugin distribution {name!r} is installed"
            raise PluginError("unknown", what, fits=suggest(name, known.values()))
    before = {*catalogue()}
    code = _run(uninstall_command([known[normal(name)] for name in names], options), dry_run)
    if code or dry_run:
        return code
    refresh()
    for entry in sorted(before - {*catalogue()}, key=_order):
        print(printable(f"removed {entry.kind}:{entry.name} of {entry.dist} {entry.version}"))
    return 0


def _divided(words: list[str]) -> tuple[list[str], list[str]]:
    """(names, pip options). The parser has removed `--`, so options begin at the first word that looks like one."""
    at = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    if not at:
        raise InputError("usage", "no plugin is named", fits="a distribution, a path or an address before --")
    return words[:at], words[at:]


def _check_wanted(word: str) -> None:
    """Refuse a missing path, which pip would otherwise look up on the package index as a name."""
    looks_like_one = "/" in word or word.startswith(".") or word.endswith((".whl", ".tar.gz", ".zip"))
    if looks_like_one and "://" not in word and " @ " not in word and not Path(word).exists():
        raise InputError(
            "no-file",
            f"no such file: {word!r}",
            fits="a wheel, an sdist, or a folder with a pyproject.toml",
        )


def _run(command: list[str], dry_run: bool) -> int:
    """Print the command and run it, with its output on stderr. Returns 0, or the exit code of a plugin error."""
    from ldmkit.cli.answers import PLUGIN

    print(f"$ {shlex.join(command)}", flush=True)
    if dry_run:
        return 0
    return PLUGIN if subprocess.run(command, stdout=sys.stderr.fileno()).returncode else 0


def _examined(new: list[Entry], before: set[Entry]) -> int:
    """List new parts, and examine their distributions in a new process, which sees what was installed."""
    for entry in sorted(new, key=_order):
        changed = any((old.kind, old.name, old.dist) == (entry.kind, entry.name, entry.dist) for old in before)
        print(printable(f"{'changed' if changed else 'new'} {entry.kind}:{entry.name} of {entry.dist} {entry.version}"))
    dists = sorted({entry.dist for entry in new} - {HOME})
    if not dists:
        print("no new parts: what was installed registers none, or was installed already")
        return 0
    return subprocess.run([sys.executable, "-m", "ldmkit", "plugins", "doctor", *dists]).returncode


def _order(entry: Entry) -> tuple[str, str, str]:
    return entry.dist, entry.kind, entry.name
