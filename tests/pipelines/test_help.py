"""`ldmkit --version`, and one line of help for every command, plugins' among them, without importing a plugin."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ldmkit
from ldmkit.cli import main
from ldmkit.cli.summaries import summary
from ldmkit.plugins.catalogue import by_name
from ldmkit.plugins.installed import Entry


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ldmkit {ldmkit.__version__}\n"


def test_every_command_says_what_it_does() -> None:
    imported = "print({'torch', 'ldmkit_training'} & {*sys.modules})"
    code = f"import sys; from ldmkit.cli import main; main(['--help']); {imported}"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    commands = by_name("command")
    assert {"train", "demo", "compare", "eval", "export", "new"} <= set(commands)
    for name, entry in commands.items():
        said = summary(entry)
        assert len(said) > 15 and not said.startswith("From ")
        (line,) = [line for line in shown.splitlines() if line.split()[:1] == [name]]
        assert said[:20] in line
    assert shown.splitlines()[-1] == "set()"


@pytest.mark.parametrize("value", ["no_such_package.command:app", "json.no_such_module:app"])
def test_a_command_whose_source_says_nothing_names_its_distribution(value: str) -> None:
    said = summary(Entry("command", "mine", value, "my-dist", "2.0"))
    assert said == "From my-dist 2.0."
