"""The public surface as text, one fact a line, compared with what is recorded in `snapshots/`.

    python tests/api/snapshot.py            # show what changed
    python tests/api/snapshot.py --write    # accept it: the diff of the commit shows what

Names of snapshots may follow, to look at those alone.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable
from pathlib import Path

import surface_cli
import surface_fields
import surface_json
import surface_names
import surface_parts

HERE = Path(__file__).parent
FOLDER = HERE / "snapshots"
ACCEPT = "python tests/api/snapshot.py --write"
SHOWN = 60
"""Lines of a diff."""

SNAPSHOTS: dict[str, Callable[[], list[str]]] = {
    "names": surface_names.names,
    "values": surface_fields.values,
    "parts": surface_parts.parts,
    "spec": surface_fields.spec,
    "recipe": surface_fields.recipe,
    "cli": surface_cli.commands,
    "json": surface_json.outputs,
}
"""Name of the file -> its lines as they are now."""


def recorded(name: str, folder: Path = FOLDER) -> list[str]:
    """Lines of a snapshot; none where it has not been taken."""
    path = folder / f"{name}.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def write(name: str, lines: list[str], folder: Path = FOLDER) -> None:
    """Record a snapshot."""
    (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def difference(name: str, before: list[str], now: list[str]) -> str:
    """What changed, in short, and how to accept it; empty where nothing did."""
    lines = [
        line
        for line in difflib.unified_diff(before, now, f"{name}.txt", "now", n=0, lineterm="")
        if not line.startswith("@@")
    ]
    if not lines:
        return ""
    more = [f"... and {len(lines) - SHOWN} more lines"] if len(lines) > SHOWN else []
    removed = sum(line.startswith("-") for line in lines[2:])
    head = f"the public surface changed ({removed} lines gone or changed, {len(lines) - 2 - removed} new):"
    asked = [line[1:].partition(": abstract")[0] for line in lines if line.startswith("+") and ": abstract " in line]
    if new := [name for name in asked if not any(line.startswith(f"{name}: abstract ") for line in before)]:
        more.append(f"{', '.join(new)}: a new abstract member breaks every plugin; give it a default")
    tail = f"If that is meant: read docs/stability.md, then accept it with `{ACCEPT} {name}`."
    return "\n".join([head, *lines[:SHOWN], *more, tail])


def main(arguments: list[str] | None = None) -> int:
    """Show or accept changes; the exit code is 1 where something changed and was not accepted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SNAPSHOTS)}; default: all")
    parser.add_argument("--write", action="store_true", help="record the surface as it is now")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(SNAPSHOTS):
        parser.error(f"there is no snapshot {', '.join(sorted(unknown))}")
    changed = 0
    for name in given.names or SNAPSHOTS:
        lines = SNAPSHOTS[name]()
        text = difference(name, recorded(name), lines)
        if text:
            print(text)
            changed += 1
        if text and given.write:
            write(name, lines)
            print(f"written: {FOLDER / name}.txt")
    return int(changed > 0 and not given.write)


if __name__ == "__main__":
    sys.exit(main())
