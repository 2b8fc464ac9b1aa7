"""The page that explains every check: `python -m ldmkit.testing.page --write` updates docs/contracts.md.

The text above the mark is written by hand; everything below it is generated from the checks' docstrings.
"""

from __future__ import annotations

import sys
from importlib import import_module
from inspect import cleandoc
from pathlib import Path

from ldmkit.plugins.kinds import GROUPS
from ldmkit.testing.checks import PAGE, checks, home

MARK = "<!-- Below this line, everything is made by: python -m ldmkit.testing.page --write -->"


def page(opening: str) -> str:
    """The whole page; `opening` is the text above the mark."""
    head = opening.partition(MARK)[0]
    homes = {kind: name for kind in ("part", *GROUPS) if (name := home(kind)) is not None}
    return "\n".join([head.rstrip(), "", MARK, "", *(_section(kind, name) for kind, name in homes.items())])


def _section(kind: str, name: str) -> str:
    module = import_module(name)
    lines = [f"## {kind}", "", cleandoc(module.__doc__ or ""), ""]
    for one in checks(kind):
        lines += [f"### {kind}-{one.name}", "", one.promise, ""]
        if one.explanation:
            lines += [one.explanation, ""]
    return "\n".join(lines)


def file() -> Path:
    """docs/contracts.md of the source tree."""
    return Path(__file__).parents[2] / PAGE


def main(arguments: list[str]) -> int:
    """Rewrite the page, or say whether it is up to date; returns the exit code."""
    path = file()
    found = path.read_text(encoding="utf-8")
    made = page(found)
    if "--write" in arguments:
        path.write_text(made, encoding="utf-8")
    elif made != found:
        print(f"{path} is stale: python -m ldmkit.testing.page --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
