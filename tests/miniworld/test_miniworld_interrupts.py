"""Ctrl-C ends `ldmkit demo` and `ldmkit eval` in a call of the network and while they write, and leaves no file."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from ldmkit_denoisers.unet import UNet
from PIL import Image
from world_models import world_model

from ldmkit.cli import main

DEMO = ["demo", "--steps", "1", "-n", "2", "--plan", "eager"]
EVAL = [
    "eval",
    "miniworld",
    "--count",
    "2",
    "--references",
    "2",
    "--steps",
    "1",
    "--conditions",
    "label",
    "--batch",
    "1",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world_model().save(tmp_path_factory.mktemp("world") / "model")


@pytest.mark.parametrize("where", ["the network", "writing"])
@pytest.mark.parametrize("command", ["demo", "eval"])
def test_nothing_is_left(
    command: str, where: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    calls = 0
    forward, save = UNet.forward, Image.Image.save

    def second(self: UNet, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            signal.raise_signal(signal.SIGINT)
        return forward(self, *given)

    def half(self: Image.Image, file: Any, *given: Any, **options: Any) -> None:
        save(self, file, *given, **options)
        signal.raise_signal(signal.SIGINT)

    if where == "writing":
        monkeypatch.setattr(Image.Image, "save", half)
    else:
        monkeypatch.setattr(UNet, "forward", second)
    sheet = str(tmp_path / "sheet.png")
    asked = (
        [*DEMO, "--model", str(folder), "--out", sheet] if command == "demo" else [*EVAL, str(folder), "--sheet", sheet]
    )
    assert main(asked) == 130
    assert "interrupted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [] and calls in (0, 2)
