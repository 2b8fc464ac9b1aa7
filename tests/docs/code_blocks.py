"""Fenced blocks of a Markdown page, and what their info strings say of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.M | re.S)
INFO = re.compile(r'(?P<language>[a-z]*)(?: \{not-run="(?P<reason>[^"]*)"\})?')

SMALLER = {
    "ldmkit train": "--set steps=2 --set data.train.config.count=4 --set data.batch=2 --set data.validation=null",
    "ldmkit demo": "--steps 2 -n 2",
    "ldmkit compare": "--steps 2 -n 1 --reference 10 --plan eager",
    "pytest -n": "--collect-only",
}
"""What is shown at full length is run as it stands but for this: what a person waits for, no test should."""


class Block(NamedTuple):
    """One block.

    Args:
        line: of its first line.
        reason: why it is not run, where it says so: ```` ```bash {not-run="needs a GPU"} ````.
    """

    language: str
    body: str
    line: int
    reason: str | None


def blocks(page: Path) -> list[Block]:
    """Every block of a page, in order.

    Raises:
        ValueError: an info string in another form.
    """
    text, found = page.read_text(encoding="utf-8"), []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        info = INFO.fullmatch(match["info"].rstrip())
        if info is None:
            raise ValueError(f"{page.name}:{line}: the info string {match['info']!r} says neither language nor not-run")
        found.append(Block(info["language"], match["body"], line, info["reason"]))
    return found


def commands(body: str) -> list[str]:
    """The commands of a shell block, one each: continued lines joined, `a && b` taken apart, comments left out."""
    lines = [line.split("  #")[0].strip() for line in body.replace("\\\n", " ").splitlines()]
    return [part.strip() for line in lines if line and line[0] != "#" for part in line.split(" && ")]


def shortened(command: str) -> str:
    """A command with what makes it short behind it."""
    bare = command.removeprefix(".venv/bin/")
    return " ".join([command, *(more for start, more in SMALLER.items() if bare.startswith(start))])
