"""Fake distributions: a folder on sys.path with modules and the metadata that pip would have written."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from environments import ROOT, SOURCES, wheel_of

from ldmkit.plugins import catalogue

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """install(name, entry_points, modules, version, requires): a third-party distribution, gone after the test."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    made: set[str] = set()

    def add(
        name: str,
        entry_points: str,
        modules: dict[str, str] | None = None,
        version: str = "1.0",
        requires: tuple[str, ...] = (),
    ) -> Path:
        for module, source in (modules or {}).items():
            (site / f"{module}.py").write_text(dedent(source))
            made.add(module)
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        needs = "".join(f"Requires-Dist: {text}\n" for text in requires)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        (folder / "entry_points.txt").write_text(dedent(entry_points))
        importlib.invalidate_caches()
        catalogue.refresh()
        return site

    yield add
    for module in made:
        sys.modules.pop(module, None)
    monkeypatch.undo()
    catalogue.refresh()


@pytest.fixture(scope="session")
def home_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of ldmkit as it stands in this checkout."""
    return wheel_of(ROOT, tmp_path_factory.mktemp("home"), SOURCES)
