"""Commands and bundled models of other distributions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ldmkit
from ldmkit.cli import main
from ldmkit.plugins import catalogue

Install = Callable[..., Path]

COMMAND = """
    import typer

    app = typer.Typer()


    @app.command()
    def greet(name: str) -> None:
        print(f"hello {name}")
"""


def test_a_plugin_may_add_a_command(install: Install, capsys: pytest.CaptureFixture) -> None:
    install("greeter", "[ldmkit.commands]\ngreet = greeting:app\n", {"greeting": COMMAND})
    assert main(["--help"]) == 0
    assert "greet" in capsys.readouterr().out and "greeting" not in sys.modules
    assert main(["greet", "world"]) == 0
    assert capsys.readouterr().out == "hello world\n"


def test_no_plugin_takes_a_command_or_model_away(install: Install, capsys: pytest.CaptureFixture) -> None:
    points = "[ldmkit.commands]\nsample = greeting:app\ntrain = greeting:app\nhi = greeting:app\n"
    install("greeter", points + "[ldmkit.models]\nminiworld = greeting:model\n", {"greeting": COMMAND})
    install("greeter-two", "[ldmkit.commands]\nhi = greeting:app\n")
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    words = [line.split()[0] for line in shown.splitlines() if line.strip()]
    assert {"sample", "train", "greeter:sample", "greeter:train", "greeter:hi", "greeter-two:hi"} <= {*words}
    assert "hi" not in words and main(["hi"]) == 2
    assert main(["greeter:train", "world"]) == 0
    assert capsys.readouterr().out.endswith("hello world\n")
    assert catalogue.by_name("model")["miniworld"].dist == "ldmkit"


@pytest.mark.parametrize(("line", "code"), [("app = 3", "plugin.not-a-command"), ("", "plugin.import-failed")])
def test_a_command_must_be_one(install: Install, line: str, code: str, capsys: pytest.CaptureFixture) -> None:
    install("greeter", "[ldmkit.commands]\ngreet = greeting:app\n", {"greeting": line})
    assert main(["greet"]) == 4
    assert code in capsys.readouterr().err


def test_a_broken_command_breaks_no_other(install: Install, capsys: pytest.CaptureFixture) -> None:
    install("greeter", "[ldmkit.commands]\ngreet = greeting:app\n", {"greeting": "raise OSError('no luck')"})
    assert main(["--help"]) == 0 and main(["plugins"]) == 0
    capsys.readouterr()
    assert main(["greet"]) == 4
    assert "plugin.import-failed" in capsys.readouterr().err


def test_a_bundled_model_of_a_plugin(install: Install, class_pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    site = install("models", "[ldmkit.models]\nclasses = some_models:class\n")
    (site / "some_models").mkdir()
    (site / "some_models" / "__init__.py").write_text("")
    class_pipe.save(site / "some_models" / "class")
    pipe = ldmkit.load("classes")
    assert pipe.spec == class_pipe.spec and pipe.origin == "classes"
    sys.modules.pop("some_models", None)
