"""A project outside of ldmkit type-checks, strictly, against the installed wheel, and does what its types say."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from environments import ROOT, environ, environment, run, wheel_of

SAMPLE = ROOT / "tests" / "thirdparty" / "typed"

USE = """
from pathlib import Path

import torch

import ldmkit
from typed_sample import kit, use

assert "site-packages" in ldmkit.__file__, ldmkit.__file__
torch.manual_seed(0)
unet = {"channels": 3, "widths": [8], "blocks": 1, "norm_groups": 4, "heads": 2, "vector": "linear"}
unet |= {"vector_dim": 8}
pipe = use.compose(
    ldmkit.get("denoiser", "unet")(unet), ldmkit.get("codec", "identity")(), ldmkit.get("process", "discrete")()
)
print(use.describe(pipe))
batch = (torch.rand(2, 3, 8, 8) * 2 - 1, [{"brightness": 0.1}, {"brightness": 0.9}])
first, second = use.losses(pipe, iter([batch, batch]))
assert second != first
assert use.refused(pipe) == "input.invalid"
folder = pipe.save(Path("model"))
print(use.draw(folder, Path()))
kit.reports()
"""

WRONG = {
    'ldmkit.laod("model")': 'no attribute "laod"',
    "ldmkit.load(3)": '"load" has incompatible type "int"',
    'ldmkit.load("model")({}, stepz=3)': 'Unexpected keyword argument "stepz"',
    'text: str = ldmkit.load("model")({}).images': 'variable has type "str"',
    'ldmkit.Slot("tokenz", 8)': '"Slot" has incompatible type',
    "from ldmkit.testing import check_samplers": 'no attribute "check_samplers"',
    'number: int = ldmkit.get("sampler", "ddim")()': 'expression has type "Sampler"',
    "class Wrong(ldmkit.Grid):\n    def sigmas(self, steps: int) -> list[float]: ...": "incompatible with supertype",
}
"""Mistakes of a user, and what mypy says of each: where it says nothing, something has become Any."""


@pytest.fixture(scope="module")
def python(home_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("typed")
    return environment(folder / "env", [home_wheel, wheel_of(SAMPLE, folder / "sample")])


def errors_of(python: Path, folder: Path, cache: Path) -> list[str]:
    """mypy's errors in a project, as a user of the installed wheel sees them."""
    options = ["--python-executable", str(python), "--config-file", "pyproject.toml", "--cache-dir", str(cache)]
    command = [sys.executable, "-m", "mypy", *options, "--no-error-summary", "--hide-error-context"]
    done = subprocess.run(command, cwd=folder, env=environ(), capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def test_the_sample_type_checks(python: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """One run for the sample and for what must not pass: reading torch takes most of the time, and is remembered."""
    folder = tmp_path / "sample"
    shutil.copytree(SAMPLE, folder)
    wrong = folder / "typed_sample" / "wrong.py"
    wrong.write_text("\n".join(["import ldmkit", *WRONG]) + "\n")
    cache = getattr(pytestconfig, "cache", None)  # absent under `-p no:cacheprovider`
    errors = errors_of(python, folder, tmp_path / "mypy" if cache is None else cache.mkdir("ldmkit-typed"))
    ours, mistakes = [], []
    for line in errors:
        (mistakes if wrong.name in line else ours).append(line)
    assert ours == []
    for source, words in WRONG.items():
        assert any(words in line for line in mistakes), f"nothing is said of {source!r} in {mistakes}"


def test_the_sample_runs(python: Path, tmp_path: Path) -> None:
    out = run(python, "-c", USE, cwd=tmp_path)
    assert "samplers" in out and (tmp_path / "out-1.png").exists()


def test_every_package_says_that_it_is_typed(home_wheel: Path) -> None:
    names = zipfile.ZipFile(home_wheel).namelist()
    packages = {name.split("/")[0] for name in names if name.count("/") == 1 and name.endswith("/__init__.py")}
    assert {"ldmkit", "ldmkit_codecs", "ldmkit_samplers"} <= packages
    assert {f"{package}/py.typed" for package in packages} - set(names) == set()
    assert "ldmkit/testing/__init__.py" in names


def test_the_templates_of_scaffolds_are_in_the_wheel(home_wheel: Path) -> None:
    plugins = ROOT / "plugins"
    templates = (plugins / "ldmkit_authoring" / "templates").rglob("*.txt")
    wanted = {path.relative_to(plugins).as_posix() for path in templates}
    assert len(wanted) > 30 and wanted - set(zipfile.ZipFile(home_wheel).namelist()) == set()
