"""Everything in the README is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
SMALL = ["steps=2", "data.train.config.count=4", "data.batch=2", "data.validation=null"]
"""Training in the README is run as it stands, but for this: two steps on four pictures."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(language: str) -> list[str]:
    return [body for name, body in BLOCK.findall(README.read_text(encoding="utf-8")) if name == language]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder that looks like the repository's root, so that paths in the README hold."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def test_python_blocks_run_in_order(folder: Path) -> None:
    code = "\n".join(blocks("python"))
    assert code, "the README shows no Python"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=300)


def test_shell_blocks_run(folder: Path) -> None:
    """Every shell line is run as it stands, except that the environment is this one, already installed."""
    lines = [line for body in blocks("bash") for line in body.replace("\\\n", " ").splitlines() if line.strip()]
    run = [line.replace(".venv/bin/", "") for line in lines if "venv" not in line.split("&&")[0] or "&&" in line]
    commands = [part.strip() for line in run for part in line.split("&&")]
    ours = [c for c in commands if c.startswith("ldmkit ")]
    assert ours, "the README runs no ldmkit command"
    left = [c for c in commands if not c.startswith(("ldmkit ", "python3 -m venv", "pip install", "pytest"))]
    assert not left, f"lines that this test does not run: {left}"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command in ours:
        if command.startswith("ldmkit train"):
            command += "".join(f" --set {value}" for value in SMALL)
        subprocess.run(command, shell=True, cwd=folder, check=True, timeout=300, env={**os.environ, "PATH": path})


def test_links_lead_somewhere() -> None:
    for page in [README, *DOCS]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
