"""`ldmkit new conditioner --signal`: each gives a trained modality, walked from the command to a picture.

Installed into a fresh virtual environment, green at once, its recipe trained for two steps, its model drawn with.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ldmkit_authoring.distribution import SIGNALS, distribution
from PIL import Image
from worlds import World, check_typed, installed

from ldmkit.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("pip") is None, reason="pip is not installed")]
NAMES = {"vector": "tone", "tokens": "swatches", "plane": "sketch", "residuals": "edged"}
GIVEN = {"vector": "[0.2, -0.5, 0.7]", "tokens": "[[0.2, 0.1, 0.4, 0.9], [-0.2, -0.9, -0.3, -0.5]]"}
SHORT = (
    "steps=2",
    "data.batch=2",
    "data.train.config.source.config.count=6",
    "data.validation.config.source.config.count=4",
)
QUICK = ("probe.count=2", "validation.count=2", "previews.count=2", "previews.steps=2", "schedule.warmup=1")

ALL = """
import os

from ldmkit.cli import main

for folder, words in {commands!r}:
    os.chdir(folder)
    for command in words:
        assert main(command) == 0, command
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = [distribution("conditioner", NAMES[signal], signal=signal) for signal in SIGNALS]
    return installed(tmp_path_factory.mktemp("world"), made)


def project(world: World, signal: str) -> Path:
    return world.root / f"ldmkit-{NAMES[signal]}"


def test_their_tests_are_green(world: World) -> None:
    folders = [str(project(world, signal) / "tests") for signal in SIGNALS]
    assert "20 passed" in world.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *folders)
    check_typed(world, [f"ldmkit-{name}" for name in NAMES.values()])


def test_each_is_trained_and_drawn_with(world: World) -> None:
    """With the recipe that comes along, as its README says; the same words for a map in a file as for numbers."""
    lines = np.zeros((64, 64), np.uint8)
    lines[20:40, 20:40] = 255
    commands = []
    for signal in SIGNALS:
        folder, name = project(world, signal), NAMES[signal]
        Image.fromarray(lines).save(folder / "map.png")
        changes = [word for value in (*SHORT, *QUICK) for word in ("--set", value)]
        given = GIVEN.get(signal, "map.png")
        sample = ["sample", f"runs/{name}/model", f"--{name}", given, "--steps", "2", "--out", "drawn.png"]
        assert f"ldmkit sample runs/{name}/model --{name} " in (folder / "README.md").read_text()
        train = ["train", "recipe.yaml", *changes]
        commands.append((str(folder), [[*train, "--dry-run"], train, sample]))
    world.run("-c", ALL.format(commands=commands))
    for signal in SIGNALS:
        folder, name = project(world, signal), NAMES[signal]
        with Image.open(folder / "drawn.png") as drawn:
            assert drawn.size == (64, 64)
        spec = json.loads((folder / "runs" / name / "model" / "pipeline.json").read_text())
        types = {part["type"] for part in spec["conditioners"].values()}
        assert name in types and bool(spec["adapters"]) == (signal == "residuals")


def test_only_conditioners_have_signals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in ((["sampler", "x", "--signal", "plane"], "a sampler has no signal"), (
        ["conditioner", "x", "--signal", "planes"], "did you mean 'plane'")):  # fmt: skip
        assert main(["new", *words, "--out", str(tmp_path)]) == 2
        err = capsys.readouterr().err
        assert "[input.signal]" in err and said in err
    assert list(tmp_path.iterdir()) == []
