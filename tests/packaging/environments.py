"""Wheels built from source trees, and fresh environments that hold them: nothing of this checkout can be seen there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("ldmkit", "plugins", "conditioners", "samplers", "pyproject.toml", "README.md", "LICENSE")
"""What the wheel of ldmkit itself is built from."""

_LEAVE_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")


def environ() -> dict[str, str]:
    """This process's environment without what changes where modules are found."""
    left_out = ("PYTHON", "MYPY", "LDMKIT", "PIP_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    return kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command that ends well."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environ(), capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def wheel_of(project: Path, folder: Path, sources: Sequence[str] | None = None) -> Path:
    """The wheel of a project, built from a copy: building writes into the source tree."""
    copy, out = folder / "source", folder / "wheel"
    copy.mkdir(parents=True)
    for path in [project / name for name in sources] if sources is not None else sorted(project.iterdir()):
        if path.is_dir():
            shutil.copytree(path, copy / path.name, ignore=_LEAVE_OUT)
        elif path.exists():
            shutil.copy(path, copy / path.name)
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
    run(sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", out, copy, cwd=folder)
    (wheel,) = out.glob("*.whl")
    return wheel


def environment(folder: Path, wheels: Sequence[Path]) -> Path:
    """The Python of a new virtual environment with these wheels, and this one's other packages behind them."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", query, cwd=folder).strip())
    quiet = ("--no-deps", "--no-index", "--disable-pip-version-check", "--quiet", "--no-compile")
    run(sys.executable, "-m", "pip", "install", *quiet, "--target", site, *wheels, cwd=folder)
    # a plain path in a .pth is added, but .pth files in it are not read: an editable ldmkit there stays unseen
    paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "others.pth").write_text("".join(f"{path}\n" for path in paths))
    return python
