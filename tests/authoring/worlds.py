"""Virtual environments with distributions of `ldmkit new` in them, installed by pip as a reader installs them.

They see this environment's packages through a .pth file, so that nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from ldmkit_authoring.distribution import write
from ldmkit_authoring.naming import Names

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class World:
    """A virtual environment, and the distributions that are installed in it in the folder above it."""

    root: Path

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """The output of one of the environment's commands.

        Raises:
            AssertionError: it failed.
        """
        bin_ = self.root / "venv" / "bin"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST", "COV_"))}
        variables = kept | {"PATH": os.pathsep.join([str(bin_), os.environ["PATH"]]), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [str(bin_ / "python"), *command], cwd=cwd or self.root, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def ldmkit(self, *arguments: str) -> str:
        return self.run("-m", "ldmkit", *arguments)


def installed(root: Path, made: Sequence[tuple[Names, Mapping[str, str]]]) -> World:
    """An environment in `root` with distributions, as `distribution` makes them."""
    venv.create(root / "venv", symlinks=True)
    paths = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (site,) = (root / "venv" / "lib").glob("python*/site-packages")
    (site / "host.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in paths))
    for names, texts in made:
        write(root / names.dist, dict(texts))
    pip = [sys.executable, "-m", "pip", "--python", str(root / "venv/bin/python"), "install", "--quiet"]
    projects = [word for names, _ in made for word in ("--editable", str(root / names.dist))]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *options, *projects], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return World(root)


def check_typed(world: World, dists: Sequence[str]) -> None:
    """Distributions pass mypy by the strict settings that are written along; what they import is judged elsewhere."""
    if shutil.which("mypy", path=Path(sys.executable).parent) is None:
        pytest.skip("mypy is not installed")
    files = [str(world.root / dist / folder) for dist in dists for folder in ("src", "tests")]
    kept = {**os.environ, "MYPYPATH": os.pathsep.join([str(ROOT), *(f for f in files if f.endswith("src"))])}
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--cache-dir",
        str(world.root / "mypy"),
        *files,
    ]
    done = subprocess.run(command, env=kept, cwd=world.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
