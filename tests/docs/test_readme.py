"""Every command and every line of Python of the README, in the place and the environment to which the README leads."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from code_blocks import blocks, commands, shortened
from reader import Reader, checkout

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("pip") is None, reason="pip is not installed")]
ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"

LONGEST = 900
"""Seconds for one command: many times what it takes, for machines that do much else."""


def test_every_line_of_the_readme(tmp_path: Path) -> None:
    reader = Reader(checkout(ROOT, tmp_path / "ldmkit"), LONGEST)
    found = blocks(README)
    typed = [command for b in found if b.language == "bash" and b.reason is None for command in commands(b.body)]
    for command in _the_first_environment_last(typed):
        reader.type(shortened(command))
    code = "\n".join(block.body for block in found if block.language == "python")
    reader.run(str(reader.bin / "python"), "-c", code)
    wanted = ("demo.png", "solved.png", "mine.png", "one.png", "compare.html", "dusk-0.png")
    assert not [name for name in wanted if not (reader.folder / name).is_file()]


def test_what_the_readme_did_not_install_is_missing(tmp_path: Path) -> None:
    """Without the extra that brings it there is no pytest, and no bare name before the environment is activated."""
    reader = Reader(tmp_path, LONGEST)
    reader.type("python3 -m venv .venv")
    with pytest.raises(AssertionError, match="never activated"):
        reader.type("ldmkit demo")
    reader.type(". .venv/bin/activate")
    with pytest.raises(AssertionError, match="pytest is not in the environment"):
        reader.type("pytest")


def _the_first_environment_last(typed: list[str]) -> list[str]:
    """Those that develop ldmkit type the second pair of commands instead of the first, so it is typed before it."""
    starts = [i for i, command in enumerate(typed) if command.startswith("python3 -m venv")]
    assert len(starts) == 2
    first, second = starts
    rest = second + 3
    assert typed[rest].endswith("activate"), "what follows the two is typed in the environment of the first"
    return [*typed[second:rest], *typed[first:second], *typed[rest:]]
