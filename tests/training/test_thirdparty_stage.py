"""A stage of another distribution, in one file: found by its name, checked, trained, resumed and saved as ours are."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from ldmkit_authoring.distribution import distribution
from ldmkit_training.before.recipe import parse_recipe, schema
from ldmkit_training.check_command import checked
from ldmkit_training.loop.engine import Engine

import ldmkit
from ldmkit import PluginError, SpecError
from ldmkit.plugins.catalogue import refresh
from ldmkit.testing import check_stage

NAME = "colours"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of installed distributions with what `ldmkit new stage colours` writes, on this process's path."""
    names, texts = distribution("stage", NAME)
    folder = tmp_path_factory.mktemp("site")
    (folder / names.package).mkdir()
    for name in ("__init__", names.module):
        (folder / names.package / f"{name}.py").write_text(texts[f"src/{names.package}/{name}.py"], encoding="utf-8")
    (folder / "README.md").write_text(texts["README.md"], encoding="utf-8")
    info = folder / f"{names.package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {names.dist}\nVersion: 1.0\n")
    points = f"[ldmkit.stages]\n{NAME} = {names.package}.{names.module}:{names.cls}\nbroken = no_such_module:Stage\n"
    (info / "entry_points.txt").write_text(points)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        refresh()
        yield folder
    for module in [name for name in sys.modules if name.split(".")[0] == names.package]:
        del sys.modules[module]
    refresh()


def data(out: Path, *overrides: str) -> dict[str, Any]:
    """Six steps, of the tiny world's pictures."""
    from ldmkit_training.before.recipe import overridden

    return overridden({"stage": NAME, **tiny.base(out), "width": 8}, overrides)


def test_it_keeps_the_contract(site: Path) -> None:
    check_stage(ldmkit.get("stage", NAME)).require()


def test_its_own_keys_stand_beside_the_common_ones(site: Path, tmp_path: Path) -> None:
    assert parse_recipe(data(tmp_path)).width == 8
    assert parse_recipe({**data(tmp_path), "stage": f"ldmkit-{NAME}:{NAME}"}).make_stage(tmp_path).turn.positions == 256
    with pytest.raises(SpecError, match="'positions'") as caught:
        parse_recipe(data(tmp_path, "positoins=3"))
    assert "positoins" in str(caught.value.where)
    with pytest.warns(UserWarning, match="'broken' is left out"):
        described = schema()
    assert {"colours", "codec"} <= set(described["discriminator"]["mapping"])


def test_one_that_cannot_be_imported_says_why(site: Path, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no_such_module"):
        parse_recipe({**data(tmp_path), "stage": "broken"})


def test_it_is_trained_and_the_average_is_saved(site: Path, tmp_path: Path) -> None:
    engine = Engine(parse_recipe(data(tmp_path / "run")), tmp_path)
    outcome = engine.run()
    saved = tiny.tensors(outcome.model)
    assert outcome.step == 6 and set(saved) == {f"weights.safetensors/{n}" for n in engine.ema.tensors}
    assert all(torch.equal(saved[f"weights.safetensors/{n}"], t) for n, t in engine.ema.tensors.items())
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation/error" in line] == [3, 6]
    resolved = yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())
    assert (resolved["stage"], resolved["width"], resolved["positions"]) == (NAME, 8, 256)


@pytest.mark.parametrize("first", [1, 4])
def test_a_run_in_two_pieces_is_the_same_run(site: Path, tmp_path: Path, first: int) -> None:
    tiny.train(parse_recipe(data(tmp_path / "whole")))
    engine = Engine(parse_recipe(data(tmp_path / "pieces")), tmp_path)
    step = engine.steps.run

    def signalling(number: int, parts: Any) -> None:
        step(number, parts)
        if number + 1 == first:
            os.kill(os.getpid(), signal.SIGTERM)

    engine.steps.run = signalling
    stopped = engine.run()
    assert (stopped.step, stopped.stopped) == (first, "SIGTERM")
    tiny.train(parse_recipe(data(tmp_path / "pieces")))
    tiny.assert_same(tiny.tensors(tmp_path / "whole/model"), tiny.tensors(tmp_path / "pieces/model"))
    last = "checkpoints/step-00000006"
    tiny.assert_same(tiny.tensors(tmp_path / "whole" / last), tiny.tensors(tmp_path / "pieces" / last))


def test_other_keys_of_its_own_are_another_run(site: Path, tmp_path: Path) -> None:
    tiny.train(parse_recipe(data(tmp_path / "run", "steps=2")))
    with pytest.raises(SpecError, match="width = 8") as caught:
        tiny.train(parse_recipe(data(tmp_path / "run", "steps=4", "width=16")))
    assert caught.value.code == "spec.other-recipe"


def test_its_self_check(site: Path, tmp_path: Path) -> None:
    found = checked(parse_recipe(data(tmp_path / "run", "optimiser.lr=0.01")), tmp_path)
    said = {check.name: check for check in found}
    assert {"updated: colours", "reach: colours, error", "gradients: colours"} <= said.keys()
    assert [name for name, check in said.items() if not check.passed and name != "overfit"] == []


def test_the_command_trains_its_readmes_recipe(site: Path, tmp_path: Path) -> None:
    """In a process of its own, where nothing was imported before."""
    (block,) = re.findall(r"```yaml\n(.*?)```", (site / "README.md").read_text(), re.S)
    recipe = yaml.safe_load(block) | {"steps": 2, "previews": None}
    recipe["data"] |= {"train": tiny.world("train", 8), "batch": 2}
    path = tiny.write(recipe, tmp_path / "recipe.yaml")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-m", "ldmkit", "train", str(path)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/colours/model/weights.safetensors").is_file()
