"""One site folder with five good distributions and many broken ones: the good ones and the core work, the doctor names
every fault."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
from broken_distributions import BROKEN, DEADLY, GOOD, UNREADABLE, Broken

import ldmkit
from ldmkit.cli import main
from ldmkit.plugins import catalogue

SLOW, HANG = "3", "12"
"""Seconds: the slow import sleeps for 3.2, the hanging one for 600, and all others take a small part of one."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All of them installed."""
    folder = tmp_path_factory.mktemp("broken") / "site"
    folder.mkdir()
    for distribution in (*GOOD, *BROKEN, *DEADLY):
        distribution.write(folder)
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        catalogue.refresh()
        yield folder
    for module in {*sys.modules} - before:
        if module.startswith(("sound_", "broken_")):
            del sys.modules[module]
    catalogue.refresh()


@pytest.fixture(scope="module")
def diagnosis(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `ldmkit plugins doctor --json` prints; it took the exit code for faults."""
    out = tmp_path_factory.mktemp("doctor") / "out.json"
    with out.open("w", encoding="utf-8") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        assert main(["plugins", "doctor", "--slow", SLOW, "--limit", HANG, "--json"]) == 4
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def test_the_good_parts_and_the_core_work(site: Path) -> None:
    pipe = ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"loudness": tiny_parts.part("conditioner", "loudness", {})},
        defaults={"size": (8, 8), "steps": 4},
    )
    loud = {"loudness": [1.0, 0.5, -1.0]}
    with pytest.warns(UserWarning, match="hook 'raising' of broken-hook 1.0: ldmkit_step raised RuntimeError"):
        out = pipe(loud, steps=4, sampler="steady", grid="gleichmäßig", guidance="gentle")
    assert torch.isfinite(out.images).all()
    assert sys.modules["sound_hooks"].seen == [0, 1, 2, 3]
    with pytest.warns(UserWarning, match=r"\(2 times\)"):
        core = pipe(loud, steps=4, sampler="euler", grid="gleichmäßig", guidance=2.0)
    # the same method written twice: lerp of floats against the in-tree form
    torch.testing.assert_close(out.latents, core.latents, atol=1e-4, rtol=1e-4)
    assert ldmkit.get("sampler", "euler").__module__.startswith("ldmkit_samplers")
    assert ldmkit.get("sampler", "broken-name-clash:euler").__module__ == "broken_name_clash"
    assert ldmkit.get("grid", "gleichma\u0308ßig") is ldmkit.get("grid", "gleichmäßig"), "however it is typed"


@pytest.mark.parametrize(
    "broken", [b for b in BROKEN if b.status not in (None, "ok") and not b.tried], ids=lambda b: b.name
)
def test_the_loader_survives(site: Path, broken: Broken) -> None:
    entry = next(e for e in catalogue.catalogue() if e.dist == broken.name)
    with pytest.raises(ldmkit.PluginError) as caught:
        ldmkit.get(entry.kind, entry.name)
    assert caught.value.code == f"plugin.{broken.code}"
    assert re.search(broken.cause, caught.value.what) and f"{broken.name} 1.0" in str(caught.value)
    judged = catalogue.verdict(entry)
    assert judged.status == broken.status and re.search(broken.remedy, judged.remedy)


def test_the_listing_shows_them_all(site: Path, capsys: pytest.CaptureFixture) -> None:
    """Every entry that can be listed is, and each distribution that cannot has a line of its own."""
    assert main(["plugins", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    named = {row["distribution"] for row in rows}
    assert {d.name for d in (*GOOD, *BROKEN, *DEADLY)} - named == {"broken-group"}
    assert sum(row["distribution"] == "broken-giant" for row in rows) == 1
    assert main(["plugins"]) == 0
    shown = capsys.readouterr()
    assert "ste\\u200bady" in shown.out and "\u200b" not in shown.out
    for name in ("broken-versions", "broken-crowd", "broken-giant", "broken-unicode", "broken-group"):
        assert name in shown.err.partition("ldmkit plugins doctor")[2]


def test_the_listing_is_shown_by_any_terminal(site: Path) -> None:
    """A name that the terminal cannot show is written with escapes."""
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "ldmkit", "plugins", "--kind", "grid"]
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    assert b"gleichm\\xe4\\xdfig" in done.stdout and done.stdout.isascii()


@pytest.mark.parametrize("broken", [*BROKEN, *DEADLY], ids=lambda b: b.name)
def test_the_doctor_names_the_fault(diagnosis: dict[str, Any], broken: Broken) -> None:
    found = [fault for fault in diagnosis["faults"] if fault["distribution"] == broken.name]
    assert found and {fault["code"] for fault in found} == {broken.code}
    assert any(re.search(broken.cause, fault["cause"]) for fault in found), [fault["cause"] for fault in found]
    for fault in found:
        assert re.search(broken.remedy, fault["remedy"]) and fault["version"] == max(broken.versions)
        assert fault["status"] == (broken.status or fault["status"])
        assert all(character.isprintable() for character in fault["cause"])


def test_the_doctor_finds_nothing_else(diagnosis: dict[str, Any]) -> None:
    faults = [f for f in diagnosis["faults"] if f["distribution"] in {good.name for good in GOOD}]
    assert not faults, faults
    assert {f["distribution"] for f in diagnosis["faults"]} == {b.name for b in (*BROKEN, *DEADLY)}
    seen = {row["distribution"]: row for row in diagnosis["seen"]}
    assert all(seen[good.name]["status"] == "ok" and seen[good.name]["checks_passed"] for good in GOOD)
    assert not diagnosis["ok"] and not diagnosis["left_out"]


def test_without_a_run_what_only_a_run_shows_is_not_found(site: Path, capsys: pytest.CaptureFixture) -> None:
    tried = [broken.name for broken in BROKEN if broken.tried]
    assert main(["plugins", "doctor", "--no-run", *tried, "good-sampler"]) == 0
    assert capsys.readouterr().out.endswith("all is well\n")
    assert main(["plugins", "doctor", "--no-run", "broken-syntax", "good_modality"]) == 4
    out = capsys.readouterr().out
    assert out.startswith("broken-syntax 1.0\n  sampler:syntax [import-failed] SyntaxError") and "    remedy: " in out
    assert out.endswith("2 parts of 2 distributions, 0 checks passed; 1 faults in 1 distributions\n")


@pytest.mark.parametrize(
    "settings", [["--safe-mode"], ["--deny", "broken-*", "--deny", "good*"], ["--allow", "x"]], ids=lambda s: s[0]
)
def test_what_is_left_out_is_no_fault(site: Path, settings: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main([*settings, "plugins", "doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and not found["seen"] and not found["faults"]
    assert {row["distribution"] for row in found["left_out"]} >= {"broken-exit", "good-sampler"}
    assert main([*settings, "plugins", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["status"] for row in rows if row["distribution"] != "ldmkit"} == {"disabled"}
    assert {row["status"] for row in rows if row["distribution"] == "ldmkit"} == {"ok"}


def test_the_doctor_wants_an_installed_distribution(site: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["plugins", "doctor", "good-samplr"]) == 4
    assert "did you mean 'good-sampler'?" in capsys.readouterr().err


@pytest.mark.slow
def test_pip_installs_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders that the other tests write are read as what pip makes of wheels with the same contents."""
    wheels, installed, written = (tmp_path / name for name in ("wheels", "installed", "written"))
    wheels.mkdir()
    written.mkdir()
    single = [distribution for distribution in (*GOOD, *BROKEN, *DEADLY) if len(distribution.versions) == 1]
    single = [distribution for distribution in single if not distribution.encodings]  # which pip refuses
    files = [str(distribution.wheel(wheels)) for distribution in single]
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(installed), *files]
    subprocess.run(command, check=True, capture_output=True)
    for distribution in single:
        distribution.write(written)
    found = []
    for folder in (installed, written):
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(folder))
            catalogue.refresh()
            found.append((catalogue.catalogue(), catalogue.problems()))
    assert found[0] == found[1] and len({entry.dist for entry in found[0][0]}) > len(GOOD) + 15
    catalogue.refresh()


def test_metadata_that_is_not_utf8_is_not_blamed_on_the_others(tmp_path: Path) -> None:
    """Although torch and pydantic read the metadata of all distributions when they are imported."""
    for distribution in (UNREADABLE, *GOOD):
        distribution.write(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "ldmkit", "plugins", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=300)
    found = json.loads(done.stdout)
    assert done.returncode == 4 and len(found["seen"]) == len(GOOD)
    (fault,) = found["faults"]
    assert fault["distribution"] == UNREADABLE.name
    assert fault["code"] == UNREADABLE.code and re.search(UNREADABLE.cause, fault["cause"])
