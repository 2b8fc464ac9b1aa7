"""Every code block of the README and of the documentation is run, or says why it is not."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from code_blocks import Block, blocks, commands, shortened

from ldmkit.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
ELSEWHERE = {
    "README.md": "tests/docs/test_readme.py",
    "docs/adm.md": "tests/docs/test_published_pages.py",
    "docs/contracts.md": "tests/kit/test_page.py",
    "docs/data.md": "tests/training/test_data_docs.py",
    "docs/imagen.md": "tests/docs/test_published_pages.py",
    "docs/prompts.md": "tests/docs/test_prompts_page.py",
    "docs/stability.md": "tests/api/test_stability.py",
    "docs/training.md": "tests/training/test_training_docs.py",
    "docs/unclip.md": "tests/docs/test_published_pages.py",
    "docs/tutorials/palette.md": "tests/authoring/test_tutorials.py",
    "docs/tutorials/sampler.md": "tests/authoring/test_tutorials.py",
    "docs/tutorials/sketch.md": "tests/authoring/test_tutorials.py",
    "docs/tutorials/swatches.md": "tests/authoring/test_tutorials.py",
}
"""Pages whose blocks need more than a working folder: a test of their own runs them; here they are only read."""

INSTALLED = ("python3 -m venv", ".venv/bin/pip install", ". .venv/bin/activate", "pip install", "pytest")
"""What makes an environment and runs these tests: continuous integration does both (`.ci/run`)."""

LONGEST = 900
"""Seconds for one page's Python, or one training: many times what they take, for machines that do much else."""

MOST_NOT_RUN = 22
"""Blocks that say why they are not run; more of them is a decision, not an accident."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that looks like the repository's root, so that paths hold."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_the_page(name: str, folder: Path) -> None:
    found = blocks(ROOT / name)
    for block in found:
        _read(block, f"{name}:{block.line}")
    if name in ELSEWHERE:
        return
    to_run = [block for block in found if block.reason is None]
    if code := "\n".join(block.body for block in to_run if block.language == "python"):
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, timeout=LONGEST, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
    for block in to_run:
        for command in commands(block.body) if block.language == "bash" else ():
            _run(command, folder, f"{name}:{block.line}")


def _read(block: Block, where: str) -> None:
    """Whether a block is what its language says."""
    assert block.language in ("python", "bash", "toml", "yaml", "json", "text"), f"{where}: name the block's language"
    assert block.reason is None or len(block.reason) > 8, f"{where}: say why it is not run"
    if block.language == "python":
        compile(block.body, where, "exec")
    elif block.language == "toml":
        tomllib.loads(block.body)
    elif block.language == "yaml":
        assert yaml.safe_load(block.body), where
    elif block.language == "json":
        try:
            json.loads(block.body)
        except ValueError:  # one document a line
            assert [json.loads(line) for line in block.body.splitlines()], where


def _run(command: str, folder: Path, where: str) -> None:
    """Run a command of ours; of others', look whether what they start is there."""
    if command.startswith(INSTALLED):
        return
    if command.startswith("python "):
        words = shlex.split(command)
        there = find_spec(words[2]) is not None if words[1] == "-m" else (ROOT / words[1]).is_file()
        assert there, f"{where}: {command}"
        return
    assert command.startswith("ldmkit "), f"{where}: nothing runs {command!r}"
    command = shortened(command)
    if command.startswith("ldmkit train"):  # it starts processes and handles signals
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        subprocess.run(shlex.split(command), cwd=folder, check=True, timeout=LONGEST, env={**os.environ, "PATH": path})
        return
    assert main(shlex.split(command)[1:]) == 0, f"{where}: {command}"


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_other_tests_run_the_pages_that_are_left_to_them(name: str) -> None:
    assert (ROOT / name).is_file()
    assert Path(name).name in (ROOT / ELSEWHERE[name]).read_text(encoding="utf-8")


def test_few_blocks_are_not_run() -> None:
    left = [f"{name}:{b.line}: {b.reason}" for name in NAMES for b in blocks(ROOT / name) if b.reason is not None]
    assert len(left) <= MOST_NOT_RUN, "\n".join(left)


def test_the_readme_shows_both_languages() -> None:
    shown = {block.language for block in blocks(ROOT / "README.md")}
    assert {"python", "bash", "toml"} <= shown
