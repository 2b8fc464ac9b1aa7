"""Runs a tutorial: files that it shows are written, commands are run, in the order of the page.

    `path`:              the block after it is the file's content
    `path`, at its end:  the block after it is added to the file
    a block of bash      its lines are run
    a block of python    without a path: run
    other blocks         are for reading

Commands run as they stand, except that `pip install` writes the metadata that pip would have written, and that training
is short: `ldmkit train` gets `SHORT` behind it.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from editable import install

from ldmkit.cli import main
from ldmkit.plugins import catalogue

BLOCK = re.compile(
    r"(?:^`(?P<path>[^`\n]+)`(?P<end>, at its end)?:\n\n)?^```(?P<kind>\w+)\n(?P<body>.*?)^```", re.M | re.S
)
SHORT = ["steps=2", "data.batch=2", "data.validation=null"]


@dataclass
class Walk:
    """Where a reader of the page stands.

    Args:
        folder: to work in.
        site: where the metadata of what is installed lie.
        short: `key=value` for `ldmkit train`.
        fewer: argument of a command -> what it is replaced by, to save time.
        ran: the commands that were run.
    """

    folder: Path
    site: Path
    patch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    short: tuple[str, ...] = ()
    fewer: dict[str, str] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)

    def page(self, path: Path) -> None:
        """All blocks of a page."""
        names: dict[str, object] = {}
        for block in BLOCK.finditer(path.read_text(encoding="utf-8")):
            if block["path"] is not None:
                self.write(block["path"], block["body"], add=block["end"] is not None)
            elif block["kind"] == "bash":
                for line in block["body"].replace("\\\n", " ").splitlines():
                    self.command(line)
            elif block["kind"] == "python":
                self.entered()
                exec(compile(block["body"], path.name, "exec"), names)

    def write(self, path: str, text: str, add: bool) -> None:
        target = self.folder / path
        assert target.is_file() if add else target.parent.is_dir(), path
        before = target.read_text(encoding="utf-8") if add else ""
        target.write_text(before + text, encoding="utf-8")

    def command(self, line: str) -> None:
        """One line of a block of bash.

        Raises:
            AssertionError: it failed.
        """
        words = [self.fewer.get(word, word) for word in shlex.split(line, comments=True)]
        if not words:
            return
        self.ran.append(line)
        self.entered()
        match words:
            case ["cd", where]:
                self.folder = self.folder / where
            case ["pip", "install", "-e", _]:
                for place in install(self.folder, self.site):
                    self.patch.syspath_prepend(str(place))
            case ["pytest", *rest]:
                self.started("-m", "pytest", "-q", "-p", "no:cacheprovider", *rest)
            case ["python", script, *rest] if script.endswith(".py"):
                self.patch.setattr(sys, "argv", [script, *rest])
                runpy.run_path(script, run_name="__main__")
            case ["ldmkit", *rest]:
                more = self.short if rest[0] == "train" else ()
                code = main([*rest, *(word for value in (*SHORT, *more) for word in ("--set", value) if more)])
                assert code == 0, f"{line}\n{self.capsys.readouterr().err}"
            case _:
                raise AssertionError(f"a command that this test does not know: {line}")

    def started(self, *words: str) -> None:
        """A Python of its own, which sees what is installed."""
        path = os.pathsep.join([str(self.site), str(self.folder / "src"), *sys.path])
        variables = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *words], cwd=self.folder, env=variables, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]

    def entered(self) -> None:
        """This process as a new one would be: in the folder, with sources and metadata as they are now."""
        self.patch.chdir(self.folder)
        for name in [name for name in sys.modules if self.is_tutorial(name)]:
            del sys.modules[name]
        catalogue.refresh()

    def is_tutorial(self, module: str) -> bool:
        found = getattr(sys.modules[module], "__file__", None)
        return found is not None and Path(found).is_relative_to(self.site.parent)
