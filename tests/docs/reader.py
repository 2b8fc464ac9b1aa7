"""A reader of the README: a copy of the checkout, an environment of its own, and the shell in which commands are typed.

`pip install` downloads nothing here: the project itself is really installed, and of what it requires, exactly the
distributions that pip would have brought are taken over from this environment. What a command needs and the README
has not installed is therefore missing, as it would be for a reader.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PIP = ("pip", "setuptools")
"""What a fresh environment holds; setuptools stands for the isolated build that pip would download."""

_PROJECT = re.compile(r"(?P<folder>[^\[\]]+)(?:\[(?P<extras>[\w,-]+)\])?")


@dataclass
class Reader:
    """Where a reader of the README stands.

    Args:
        folder: the copy of the checkout, in which everything is typed.
        longest: seconds for one command.
        active: whether the environment was activated.
        there: canonical names of the distributions in the environment.
    """

    folder: Path
    longest: float
    active: bool = False
    there: set[str] = field(default_factory=set)

    @property
    def bin(self) -> Path:
        return self.folder / ".venv" / "bin"

    @property
    def site(self) -> Path:
        (found,) = (self.folder / ".venv" / "lib").glob("python*/site-packages")
        return found

    def type(self, command: str) -> None:
        """One command, as it stands.

        Raises:
            AssertionError: it failed.
        """
        words = shlex.split(command)
        match words:
            case ["python3", "-m", "venv", where]:
                shutil.rmtree(self.folder / where, ignore_errors=True)
                self.there.clear()
                self.run(sys.executable, "-m", "venv", "--without-pip", where)
                self.take(PIP)
            case [".", ".venv/bin/activate"]:
                assert (self.bin / "activate").is_file()
                self.active = True
            case [program, "install", *rest] if Path(program).name == "pip":
                self.found(program)
                self.install(rest)
            case [program, *rest]:
                self.run(self.found(program), *rest)

    def found(self, program: str) -> str:
        """Where the reader's shell finds a program: of this environment only, and by its bare name only once active."""
        path = self.folder / program if "/" in program else self.bin / program
        assert self.active or "/" in program, f"{program}: the environment was never activated"
        assert path.is_file(), f"{program} is not in the environment that the README has led to"
        return str(path)

    def install(self, words: list[str]) -> None:
        """`pip install [-c FILE] [-e] FOLDER[extras]`."""
        rest = iter(words)
        for word in rest:
            if word == "-c":
                assert (self.folder / next(rest)).is_file()
            elif word != "-e":
                match = _PROJECT.fullmatch(word)
                assert match is not None, word
                self.project(self.folder / match["folder"], (match["extras"] or "").split(","), "-e" in words)

    def project(self, folder: Path, extras: list[str], editable: bool) -> None:
        """Install a project, and take over what it requires."""
        declared = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        wanted = [*declared["dependencies"], *(r for e in extras if e for r in declared["optional-dependencies"][e])]
        self.there.add(canonicalize_name(declared["name"]))
        self.take(wanted)
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
        where = ["--editable", str(folder)] if editable else [str(folder)]
        self.run(str(self.bin / "python"), "-m", "pip", "install", *options, *where)

    def take(self, requirements: list[str] | tuple[str, ...]) -> None:
        """Link distributions of this environment into the reader's, with all that they require."""
        pending = [Requirement(text) for text in requirements]
        while pending:
            requirement = pending.pop()
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            name = canonicalize_name(requirement.name)
            try:
                found = distribution(name)
            except PackageNotFoundError:
                continue  # an optional backend for another platform
            inner = [Requirement(text) for text in found.requires or ()]
            pending += [r for r in inner if _wanted(r, requirement.extras)] if name not in self.there else []
            if name not in self.there:
                self.there.add(name)
                self.link(found)

    def link(self, found: Distribution) -> None:
        """The files of one distribution, and its commands."""
        base = Path(str(found.locate_file("")))
        for top in {Path(str(file)).parts[0] for file in found.files or () if Path(str(file)).parts[0] != ".."}:
            if top != "__pycache__" and not (self.site / top).exists():
                (self.site / top).symlink_to(base / top)
        for point in found.entry_points.select(group="console_scripts"):
            script = self.bin / point.name
            module, _, function = point.value.partition(":")
            # as pip writes it where the interpreter's path has a space
            start = f"#!/bin/sh\n'''exec' {shlex.quote(str(self.bin / 'python'))} \"$0\" \"$@\"\n' '''\n"
            call = f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n"
            script.write_text(start + call, encoding="utf-8")
            script.chmod(0o755)

    def run(self, *words: str) -> None:
        """A process in the folder, with the reader's environment.

        Raises:
            AssertionError: it failed.
        """
        left_out = ("PYTHON", "PYTEST", "LDMKIT", "PIP_", "COV_", "VIRTUAL_ENV")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        variables = kept | {"PATH": f"{self.bin}:/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            words, cwd=self.folder, env=variables, capture_output=True, text=True, timeout=self.longest
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"


def _wanted(requirement: Requirement, extras: set[str]) -> bool:
    """Whether a requirement of a distribution holds here, with these of its extras."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, ""))


def checkout(source: Path, folder: Path) -> Path:
    """A copy of a checkout, without what a fresh clone lacks."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*", "runs", "build", "dist")
    shutil.copytree(source, folder, ignore=ignored)
    return folder
