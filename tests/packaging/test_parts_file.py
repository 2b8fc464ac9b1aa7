"""A file of parts that is not installed: asked for, named in what is saved, and never executed on its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ldmkit
from ldmkit.cli import main
from ldmkit.plugins import local
from ldmkit.plugins.catalogue import refresh
from ldmkit.plugins.local import FILE, VARIABLE, kebab_case

PARTS = '''
from pathlib import Path
from ldmkit import Conditioner, Sampler, get

Path(__file__).with_name("executed").touch()

class _Helper(get("sampler", "euler")):
    """Not a part: its name is private."""

class SlowEuler(_Helper):
    """Euler with an option.

    Source: this test.
    """

    drift: float = 0.0

class HalfDone(Conditioner):
    """A conditioner that is not finished."""
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a parts file, and no parts file in use afterwards."""
    (tmp_path / FILE).write_text(PARTS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    yield tmp_path
    for used in local._used.values():
        sys.modules.pop(used.path.stem, None)
    local._used.clear()
    refresh()


def executed(folder: Path) -> bool:
    return (folder / "executed").exists()


def test_it_is_not_executed_unless_asked(folder: Path) -> None:
    with pytest.raises(ldmkit.PluginError) as caught:
        ldmkit.get("sampler", "slow-euler")
    assert caught.value.code == "plugin.unknown" and f"--parts {FILE}" in str(caught.value)
    assert not executed(folder) and "slow-euler" not in ldmkit.components("sampler")


def test_its_classes_are_parts_under_their_names(folder: Path) -> None:
    assert ldmkit.use_parts() == ["conditioner:half-done", "sampler:slow-euler"]
    sampler = ldmkit.get("sampler", "slow-euler")(drift=0.5)
    assert ldmkit.name_of("sampler", type(sampler)).version.startswith("sha256:")
    with pytest.raises(ldmkit.PluginError, match="HalfDone does not implement"):
        ldmkit.get("conditioner", "half-done")


def test_the_environment_names_it_for_as_long_as_it_is_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, FILE)
    assert "slow-euler" in ldmkit.components("sampler")
    monkeypatch.delenv(VARIABLE)
    assert "slow-euler" not in ldmkit.components("sampler")


def test_safe_mode_executes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, FILE)
    monkeypatch.setenv("LDMKIT_SAFE_MODE", "1")
    assert "slow-euler" not in ldmkit.components("sampler")
    with pytest.raises(ldmkit.PluginError, match="safe mode"):
        ldmkit.use_parts()
    assert not executed(folder)


def test_pictures_and_models_say_which_file_they_need(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miniworld = ldmkit.load("miniworld")
    ldmkit.use_parts()
    pipe = miniworld.with_(sampler="slow-euler", steps=2)
    pipe.save("model")
    out = pipe({"text": "a red house"}, seeds=[1])
    version = ldmkit.name_of("sampler", ldmkit.get("sampler", "slow-euler")).version
    assert out.recipes[0]["sampler"]["version"] == version
    out.save("picture.png")
    del sys.modules["ldmkit_parts"]
    local._used.clear()
    refresh()
    with pytest.warns(UserWarning, match=f"{FILE} {version}"):
        loaded = ldmkit.load("model")
    with pytest.raises(ldmkit.PluginError) as caught:
        ldmkit.replay(loaded, out.recipes[0])
    assert caught.value.code == "plugin.not-installed" and version in str(caught.value) and FILE in str(caught.value)
    (folder / FILE).write_text(PARTS + "# changed\n", encoding="utf-8")
    assert main(["--parts", FILE, "replay", "picture.png", "--model", "model", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["largest_difference"] == 0
    assert said["changed_parts"]["sampler"][0] == f"slow-euler @ {FILE} {version}"
    assert "slow-euler" not in ldmkit.components("sampler"), "the option holds for one command"


def test_a_changed_file_does_not_pass_off_its_version_as_that_of_older_parts(folder: Path) -> None:
    ldmkit.use_parts()
    old = ldmkit.get("sampler", "slow-euler")
    (folder / FILE).write_text(PARTS.replace("0.0", "1.0"), encoding="utf-8")
    ldmkit.use_parts(FILE)
    assert ldmkit.get("sampler", "slow-euler")().drift == 1.0
    with pytest.raises(ldmkit.PluginError) as caught:
        ldmkit.name_of("sampler", old)
    assert caught.value.code == "plugin.unregistered"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("import nowhere_at_all", "import-failed", "nowhere_at_all"),
        ("raise SystemExit(3)", "import-failed", "SystemExit"),
        ("class", "import-failed", "line 1"),
        ("class Plain: pass", "no-parts", "class of a kind"),
        ("import ldmkit\nfrom ldmkit import Sampler", "no-parts", "class of a kind"),
    ],
)
def test_a_bad_file_says_what_is_wrong(folder: Path, text: str, code: str, said: str) -> None:
    (folder / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(ldmkit.PluginError) as caught:
        ldmkit.use_parts()
    assert caught.value.code == f"plugin.{code}" and said in str(caught.value) and FILE in str(caught.value)
    assert "ldmkit_parts" not in sys.modules and ldmkit.components("sampler")


@pytest.mark.parametrize("name", ["absent.py", "parts.txt", "my-parts.py"])
def test_what_is_not_a_python_file(folder: Path, name: str) -> None:
    if name != "absent.py":
        (folder / name).write_text(PARTS, encoding="utf-8")
    with pytest.raises(ldmkit.PluginError) as caught:
        ldmkit.use_parts(name)
    assert caught.value.code == "plugin.no-parts-file" and name in str(caught.value)


def test_a_module_of_that_name_is_not_replaced(folder: Path) -> None:
    (folder / "json.py").write_text(PARTS, encoding="utf-8")
    with pytest.raises(ldmkit.PluginError) as caught:
        ldmkit.use_parts("json.py")
    assert caught.value.code == "plugin.module-taken" and sys.modules["json"] is json


def test_the_same_text_elsewhere_is_another_module(folder: Path) -> None:
    ldmkit.use_parts()
    first = ldmkit.get("sampler", "slow-euler")
    (folder / "other").mkdir()
    (folder / "other" / FILE).write_text(PARTS, encoding="utf-8")
    ldmkit.use_parts(folder / "other" / FILE)
    second = ldmkit.get("sampler", "slow-euler")
    assert second is not first and ldmkit.name_of("sampler", second).name == "slow-euler"


def test_two_classes_of_one_name(folder: Path) -> None:
    (folder / FILE).write_text(PARTS + "\n\nclass Slow_Euler(_Helper): pass\nclass SlowEULER(_Helper): pass\n")
    assert kebab_case("SlowEULER") == "slow-euler"
    with pytest.raises(ldmkit.PluginError, match="slow-euler") as caught:
        ldmkit.use_parts()
    assert caught.value.code == "plugin.name-taken"


@pytest.mark.parametrize(("name", "kebab"), [("EdgeMap", "edge-map"), ("HTTPMap", "http-map"), ("Map2D", "map2-d")])
def test_names(name: str, kebab: str) -> None:
    assert kebab_case(name) == kebab


def test_the_command_lists_it_and_runs_the_kit_on_it(folder: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ldmkit", "--parts", FILE, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    listed = json.loads(run("plugins", "--kind", "sampler", "--json").stdout)
    own = [row for row in listed if row["name"] == "slow-euler"]
    assert [row["origin"] for row in own] == [f"file: {folder / FILE}"]
    checked = run("plugins", "check", "sampler:slow-euler", "--json")
    assert json.loads(checked.stdout)[0]["ok"] is True, checked.stderr
