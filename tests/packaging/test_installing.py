"""`ldmkit install` and `uninstall`: into the environment of the running interpreter, and nothing unsaid."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from environments import ROOT, SOURCES, environ, environment, run, wheel_of

from ldmkit import PluginError
from ldmkit.cli import main
from ldmkit.cli.answers import PLUGIN, USAGE
from ldmkit.plugins import installing

OFFLINE = ("--", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")


def test_the_command_is_that_of_the_interpreter(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["install", "--dry-run", "some-parts", str(tmp_path), "--", "--no-deps"]) == 0
    out = capsys.readouterr().out
    assert out == f"$ {sys.executable} -m pip install --no-deps some-parts {tmp_path}\n"


def test_without_pip_uv_is_asked_for_this_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "find_spec", lambda name: None)
    monkeypatch.setattr(installing.shutil, "which", lambda name: "/bin/uv" if name == "uv" else None)
    assert installing.install_command(["a"]) == ["/bin/uv", "pip", "install", "--python", sys.executable, "a"]
    assert installing.uninstall_command(["a"]) == ["/bin/uv", "pip", "uninstall", "--python", sys.executable, "a"]
    monkeypatch.setattr(installing.shutil, "which", lambda name: None)
    with pytest.raises(PluginError, match=r"no-installer.*has no pip"):
        installing.install_command(["a"])


def test_an_environment_of_the_system_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installing.sysconfig, "get_path", lambda *_: str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    assert not installing.is_externally_managed()
    (tmp_path / "EXTERNALLY-MANAGED").write_text("[externally-managed]\n")
    with pytest.raises(PluginError, match=r"externally-managed.*-m venv"):
        installing.install_command(["a"])
    monkeypatch.setattr(sys, "base_prefix", "/elsewhere")
    assert installing.install_command(["a"])[0] == sys.executable, "a virtual environment is its user's own"


@pytest.mark.parametrize(
    ("file", "tool"), [("pipx_metadata.json", "pipx inject"), ("uv-receipt.toml", "uv tool install")]
)
def test_a_tools_environment_is_said(
    file: str, tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / file).write_text("")
    monkeypatch.setattr(installing, "environment", lambda: tmp_path)
    assert main(["install", "--dry-run", "some-parts"]) == 0
    assert tool in capsys.readouterr().err


def test_slips_are_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install", "--", "--no-deps"]) == USAGE
    assert main(["install", "./no-such-folder"]) == USAGE
    assert main(["install", "parts-1.0-py3-none-any.whl"]) == USAGE
    assert main(["uninstall", "no-such-parts"]) == PLUGIN
    assert main(["uninstall", "ldmkit"]) == PLUGIN
    captured = capsys.readouterr()
    assert "$" not in captured.out and "no plugin distribution 'no-such-parts' is installed" in captured.err


def test_a_wheel_is_installed_examined_and_removed(tmp_path: Path) -> None:
    """In an environment of its own, without a network."""
    home = wheel_of(ROOT, tmp_path / "home", SOURCES)
    plugin = wheel_of(ROOT / "tests" / "thirdparty" / "v1", tmp_path / "plugin")
    python = environment(tmp_path / "env", [home])
    said = run(python, "-m", "ldmkit", "install", plugin, *OFFLINE, cwd=tmp_path)
    assert f"$ {python} -m pip install" in said
    assert "new sampler:v1-" in said and "of thirdparty-v1 1.0" in said and "all is well" in said
    listed = run(python, "-m", "ldmkit", "plugins", "--by-distribution", cwd=tmp_path)
    assert f"thirdparty-v1 1.0  {plugin}" in listed
    gone = run(python, "-m", "ldmkit", "uninstall", "Thirdparty_V1", *OFFLINE[:1], "--quiet", cwd=tmp_path)
    assert "removed sampler:v1-" in gone
    assert "thirdparty-v1" not in run(python, "-m", "ldmkit", "plugins", cwd=tmp_path)
    assert "PIP_NO_INDEX" not in environ()
