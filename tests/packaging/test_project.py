"""`ldmkit check pyproject.toml`: what is wrong with a plugin is said before it is installed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ldmkit import PluginError
from ldmkit.cli import main
from ldmkit.cli.answers import MODEL, PLUGIN
from ldmkit.plugins.catalogue import catalogue
from ldmkit.plugins.project import read_project

THIRDPARTY = Path(__file__).parents[1] / "thirdparty" / "v1"

SAMPLER = '''
"""A sampler."""

import ldmkit


class Straight(ldmkit.Sampler):
    """Euler's method."""

    api = 1
    order = 1

    def steps(self, denoise, x, sigmas, noise):
        for i in range(len(sigmas) - 1):
            x0 = denoise(x, sigmas[i])
            x = x0 + (sigmas[i + 1] / sigmas[i]) * (x - x0)
            yield ldmkit.Step(i, len(sigmas) - 1, sigmas[i], sigmas[i + 1], x, x0)
'''

GOOD = """
[project]
name = "straight-parts"
version = "0.3"
dependencies = ["ldmkit>=0.1"]
[project.entry-points."ldmkit.samplers"]
straight = "straight_parts.own:Straight"
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A sound project; its modules are forgotten at the end."""
    package = tmp_path / "src" / "straight_parts"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "own.py").write_text(SAMPLER)
    path = tmp_path / "pyproject.toml"
    path.write_text(GOOD)
    yield path
    for name in [name for name in sys.modules if name.split(".")[0] == "straight_parts"]:
        del sys.modules[name]


def test_a_sound_project_is_checked_by_the_kit(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, path = catalogue(), list(sys.path)
    assert main(["check", str(project)]) == 0
    text = capsys.readouterr().out
    assert "straight-parts 0.3" in text and "sampler:straight = straight_parts.own:Straight" in text
    assert "order: measured" in text and "1 part(s) declared, 1 checked: all is well" in text
    assert (catalogue(), sys.path) == (before, path), "nothing of it is left behind"


def test_parts_of_a_project_find_one_another(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The adapter of the frozen plugin names its own denoiser as its example's."""
    copy = shutil.copytree(THIRDPARTY, tmp_path / "copy")
    try:
        assert main(["check", str(copy / "pyproject.toml"), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "thirdparty_v1"]:
            del sys.modules[name]
    adapter = next(part for part in found["parts"] if part["kind"] == "adapter")
    assert found["ok"] and adapter["ok"] and found["findings"] == []


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("ldmkit.samplers", "ldmkit.sampler", "unknown-group", "did you mean 'ldmkit.samplers'"),
        ("ldmkit.samplers", "ldmkti.samplers", "unknown-group", "did you mean 'ldmkit.samplers'"),
        ("ldmkit.samplers", "other.things", "no-parts", "ldmkit.samplers"),
        ("straight =", '"a:b" =', "bad-name", "characters with a special meaning"),
        ('"straight_parts.own:Straight"', "3", "bad-value", "package.module:Class"),
        ("own:Straight", "own", "bad-value", "names no class"),
        ("parts.own:", "parts.onw:", "no-module", "did you mean 'straight_parts.own'"),
        ("own:Straight", "own:Straihgt", "no-class", "did you mean 'Straight'"),
        ("ldmkit>=0.1", "ldmkit>=99", "incompatible", "requires ldmkit>=99"),
    ],
)
def test_faults_are_named(
    project: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, code: str, words: str
) -> None:
    project.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    assert main(["check", str(project), "--json"]) == PLUGIN
    found = json.loads(capsys.readouterr().out)
    [finding] = [one for one in found["findings"] if one["fault"]]
    assert finding["code"] == code and words in finding["cause"] + finding["remedy"]
    assert not found["ok"] and found["parts"] == []
    assert main(["check", str(project)]) == PLUGIN
    assert f"[{code}]" in capsys.readouterr().out


def test_what_should_be_known_is_a_note(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project.write_text(GOOD.replace('"ldmkit>=0.1"', '"numpy"').replace("straight =", "euler ="), encoding="utf-8")
    assert main(["check", str(project), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["code"] for one in found["findings"]} == {"no-requirement", "clash"}
    clash = next(one for one in found["findings"] if one["code"] == "clash")
    assert "means the in-tree part" in clash["cause"] and "straight-parts:euler" in clash["remedy"]


def test_the_kit_runs_and_another_api_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = project.parent / "src" / "straight_parts" / "own.py"
    own.write_text(SAMPLER.replace("api = 1", "api = 99"))
    assert main(["check", str(project)]) == PLUGIN
    assert "is written for version 99 of the sampler contract" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["[project\n", "[tool.other]\nname = 'x'\n", "[project]\nname = 3\n", "\xff"])
def test_what_is_no_project_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(PluginError, match="bad-project"):
        read_project(path)
    with pytest.raises(PluginError, match="bad-project"):
        read_project(tmp_path / "absent.toml")


def test_folders_of_models_are_checked_as_before(class_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(class_folder)]) == 0
    assert "composes" in capsys.readouterr().out
    assert main(["check", str(class_folder / "absent")]) == MODEL


def test_plugins_by_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--by-distribution", "--kind", "grid"]) == 0
    first, kinds, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("ldmkit ") and kinds.split()[0] == "grid" and "karras" in kinds
    assert main(["plugins", "--kind", "grid", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["origin"] for row in rows if row["distribution"] == "ldmkit")
