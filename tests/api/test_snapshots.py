"""The public surface is what the snapshots say; a change is a conscious diff."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import snapshot
import surface_cli
import surface_fields
import surface_json
import surface_names
import surface_parts

import ldmkit
from ldmkit.cli import check
from ldmkit.cli.app import app
from ldmkit.plugins.kinds import GROUPS

ROOT = Path(__file__).parents[2]


@cache
def current(name: str) -> list[str]:
    """The lines of a snapshot as the code has them now."""
    return snapshot.SNAPSHOTS[name]()


@pytest.mark.parametrize("name", snapshot.SNAPSHOTS)
def test_the_surface_is_the_recorded_one(name: str) -> None:
    if text := snapshot.difference(name, snapshot.recorded(name), current(name)):
        pytest.fail(text, pytrace=False)


@pytest.mark.parametrize("name", snapshot.SNAPSHOTS)
def test_snapshots_say_nothing_of_a_machine(name: str) -> None:
    lines = snapshot.recorded(name)
    assert lines and len(lines) == len(set(lines))
    assert [line for line in lines if re.search(r"at 0x|/tmp|/home|site-packages|object at", line)] == []


def test_every_part_is_built() -> None:
    lines = current("parts")
    assert [line for line in lines if "cannot be built" in line or "has no example" in line] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {f"{kind}:{name}" for kind, group in GROUPS.items() for name in project["entry-points"][group]}
    built = {line.split(": from")[0].split(" (")[0] for line in lines if ": from" in line}
    assert built == named, "install again: entry points in pyproject.toml are not those that are installed"


def test_every_command_with_json_is_recorded() -> None:
    commands = {
        line.split(" --json")[0].removeprefix("ldmkit ") for line in surface_cli.commands() if " --json" in line
    }
    covered = {case.name.split(" (")[0].split(" --")[0] for case in surface_json.CASES}
    assert commands - covered == set(), "add a case to tests/api/surface_json.py"


def test_a_difference_is_short_and_says_how_to_accept_it() -> None:
    assert snapshot.difference("cli", ["a", "b"], ["a", "b"]) == ""
    text = snapshot.difference("cli", ["a", "b", "c"], ["a", "B", "c", "d"])
    assert text.splitlines()[3:6] == ["-b", "+B", "+d"] and "1 lines gone or changed, 2 new" in text
    assert "python tests/api/snapshot.py --write cli" in text and "docs/stability.md" in text
    long = snapshot.difference("cli", [], [str(i) for i in range(1000)])
    assert len(long.splitlines()) < snapshot.SHOWN + 5 and "more lines" in long


def test_a_new_abstract_member_is_named() -> None:
    before = ["ldmkit.Grid.sigmas: abstract method (steps: int) -> list[float]"]
    changed = before[0].replace("int", "float")
    text = snapshot.difference("names", before, [changed, "ldmkit.Grid.start: abstract property -> float"])
    assert "ldmkit.Grid.start: a new abstract member breaks every plugin" in text
    assert "ldmkit.Grid.sigmas: a new" not in text and "breaks" not in snapshot.difference("names", before, [changed])


def test_the_tool_accepts_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(snapshot, "FOLDER", tmp_path)
    monkeypatch.setattr(snapshot.recorded, "__defaults__", (tmp_path,))
    monkeypatch.setattr(snapshot.write, "__defaults__", (tmp_path,))
    monkeypatch.setitem(snapshot.SNAPSHOTS, "cli", lambda: ["one", "two"])
    assert snapshot.main(["cli"]) == 1 and not (tmp_path / "cli.txt").exists()
    assert snapshot.main(["cli", "--write"]) == 0 and snapshot.recorded("cli") == ["one", "two"]
    assert snapshot.main(["cli"]) == 0
    assert "+one" in capsys.readouterr().out


def test_the_command_runs_by_itself() -> None:
    done = subprocess.run([sys.executable, snapshot.__file__, "spec"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_signature_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = surface_names.names()

    def get(kind: str, name: str, quiet: bool = False) -> Any: ...

    monkeypatch.setattr(ldmkit, "get", get)
    monkeypatch.setattr(ldmkit.Codec, "raw", property(lambda self: None))
    monkeypatch.setattr(ldmkit.Noise, "more", 3, raising=False)
    text = snapshot.difference("names", before, surface_names.names())
    assert "+ldmkit.get: function (kind: str, name: str, quiet: bool = False) -> Any" in text
    assert "-ldmkit.Codec.raw: method (latents: Tensor) -> Tensor" in text
    assert "+ldmkit.Codec.raw: property -> Any" in text and "+ldmkit.Noise.more = 3" in text


def test_a_changed_field_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = surface_fields.values()

    class Other(ldmkit.Value):
        channels: int = 4

    monkeypatch.setattr(ldmkit.get("codec", "identity"), "Config", Other)
    text = snapshot.difference("values", before, surface_fields.values())
    assert "-codec:identity.channels: int, Ge(ge=1)" in text and "+codec:identity.channels: int, default 4" in text


def test_a_renamed_tensor_slot_and_port_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = next(e for e in surface_fields.in_tree() if (e.kind, e.name) == ("denoiser", "unet"))
    monkeypatch.setattr(surface_parts, "in_tree", lambda: [entry])
    config = {"channels": 3, "widths": [8], "blocks": 1, "norm_groups": 4, "heads": 2}
    config |= {"attention": ["cross"], "context_dim": 8}
    cls = ldmkit.get("denoiser", "unet")
    monkeypatch.setattr(cls, "examples", (ldmkit.Example(config),))
    before = surface_parts.parts()

    class Renamed(cls):
        def __init__(self, config: Any = None) -> None:
            super().__init__(config)
            self.slots = {f"{name}s": slot for name, slot in self.slots.items()}
            self.ports = {name.replace("mid", "middle"): port for name, port in self.ports.items()}
            self.way_in = self._modules.pop(next(iter(self._modules)))

    monkeypatch.setattr(surface_parts, "load_entry", lambda entry: Renamed)
    text = snapshot.difference("parts", before, surface_parts.parts())
    assert "-denoiser:unet slot context: tokens of dim 8" in text and "-denoiser:unet port mid" in text
    assert "+denoiser:unet tensor way_in." in text


def test_a_new_command_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = surface_cli.commands()
    monkeypatch.setattr(app, "registered_commands", list(app.registered_commands))
    app.command("other")(check.check_spec)
    text = snapshot.difference("cli", before, surface_cli.commands())
    assert "+ldmkit other SPEC: Path, required" in text and "+ldmkit other --json: bool, default False" in text


def test_shapes_of_json() -> None:
    found: dict[str, set[str]] = {}
    case = surface_json.Case("x", "x", keyed=("by_name",), whole=("free",))
    data = {"rows": [{"a": 1}, {"a": None}], "by_name": {"p": 1.5, "q": 2.5}, "free": {"x": 1}, "none": []}
    surface_json._shape(data, "", case, found)
    assert found == {
        "": {"object"},
        "rows": {"array"},
        "rows[]": {"object"},
        "rows[].a": {"integer", "null"},
        "by_name": {"object"},
        "by_name.*": {"number"},
        "free": {"object, see the part"},
        "none": {"array"},
    }
