"""What is installed is what pyproject.toml says; listing it is fast and imports nothing heavy."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from broken_distributions import Distribution

from ldmkit.cli import main
from ldmkit.plugins.catalogue import HOME, Entry, catalogue, load_entry
from ldmkit.plugins.kinds import COMMANDS_GROUP, GROUPS, HOOKS_GROUP, MODELS_GROUP

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "numpy", "diffusers", "safetensors", "PIL", "huggingface_hub")
BUDGET = 0.3
"""Seconds, on a machine where `python -c pass` takes at most 20 ms; on a slower one in proportion."""


def in_tree() -> list[Entry]:
    return [entry for entry in catalogue() if entry.dist == HOME]


def test_entry_points_are_those_of_pyproject() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert {*declared} <= {*GROUPS.values(), HOOKS_GROUP, COMMANDS_GROUP, MODELS_GROUP, "pytest11"}
    wanted = {(group, name, value) for group, lines in declared.items() for name, value in lines.items()}
    points = metadata.distribution(HOME).entry_points
    installed = {(p.group, p.name, p.value) for p in points if p.group != "console_scripts"}
    assert installed == wanted, "entry points changed: run `pip install -e .` again"


@pytest.mark.parametrize("entry", in_tree(), ids=lambda e: f"{e.kind}-{e.name}")
def test_every_entry_point_imports_and_keeps_its_contract(entry: Entry) -> None:
    if entry.kind == "model":
        return  # a folder, loaded by the test of bundled models
    part = load_entry(entry)
    if entry.kind in GROUPS:
        assert part.__doc__, "ldmkit plugins show prints the first line"


def test_no_class_stands_under_two_names() -> None:
    values = [(entry.kind, entry.value) for entry in in_tree()]
    assert len(values) == len(set(values))


@pytest.fixture(scope="module")
def fifty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site folder with 50 plugins of two parts each."""
    site = tmp_path_factory.mktemp("fifty")
    for i in range(50):
        points = {
            "ldmkit.samplers": {f"plugin-{i}": f"plugin_{i}:Steady"},
            "ldmkit.grids": {"even": f"plugin_{i}:Even"},
        }
        Distribution(f"plugin-{i}", points, {f"plugin_{i}": "raise RuntimeError('it was imported')"}).write(site)
    return site


def with_site(site: Path | None) -> dict[str, str]:
    """This environment, with one more folder of distributions."""
    path = os.pathsep.join(filter(None, [str(site or ""), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}


def heavy_modules(*arguments: str, site: Path | None = None) -> list[str]:
    """What a command of ldmkit imports that it should not, measured in a fresh process."""
    code = (
        "import sys, json\nfrom ldmkit.cli import main\nmain(sys.argv[1:])\nprint('\\n' + json.dumps([*sys.modules]))"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=with_site(site))
    modules = json.loads(done.stdout.splitlines()[-1])
    assert "ldmkit.cli" in modules
    return [m for m in modules if m.split(".")[0] in HEAVY or m.startswith(("ldmkit_", "plugin_"))]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plugins"],
        ["plugins", "--json"],
        ["sample", "--help"],
        ["--deny", "x", "plugins", "--kind", "grid"],
    ],
    ids=" ".join,
)
def test_listing_imports_no_plugin(arguments: list[str], fifty: Path) -> None:
    assert heavy_modules(*arguments, site=fifty) == []


def test_import_is_free_of_torch() -> None:
    code = "import sys, ldmkit; ldmkit.components('sampler'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "ldmkit" in loaded and loaded.isdisjoint({*HEAVY, "pydantic", "pluggy", "typer"})


def seconds(*command: str, site: Path | None = None) -> float:
    """Processor time, median of five runs: what the wall clock says of an idle machine, whatever else runs on it."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], capture_output=True, check=True, env=with_site(site))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(times)


@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["plugins", "--json"]], ids=" ".join)
def test_listing_is_fast_with_fifty_plugins(arguments: list[str], fifty: Path) -> None:
    # The floor is measured beside it: on a slower machine both are slow alike.
    floor = seconds("-c", "pass", site=fifty)
    taken = seconds("-m", "ldmkit", *arguments, site=fifty)
    assert taken < BUDGET * max(1.0, floor / 0.02), f"{taken:.3f} s, while an empty Python takes {floor:.3f} s"


def test_the_quick_listing_is_the_listing(capsys: pytest.CaptureFixture) -> None:
    """Without Typer, and through it where the options are written in another way."""
    printed = []
    for arguments in (["plugins", "--kind", "sampler"], ["plugins", "--kind=sampler"]):
        assert main(arguments) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and "euler" in printed[0]
    assert main(["plugins", "--kind", "smapler"]) == 4 and main(["plugins", "--kind"]) == 2
    assert main(["plugins", "--no-json"]) == 2
