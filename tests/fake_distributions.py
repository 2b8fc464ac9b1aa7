"""Installing a distribution that is nothing but entry points, for the length of a test."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from ldmkit.plugins import catalogue

Distribution: TypeAlias = Callable[[str, str], Path]
"""distribution(name, entry_points): installed until the test ends; returns the folder for PYTHONPATH."""


def write(site: Path, name: str, entry_points: str) -> Path:
    """The metadata that pip would have written into a folder of `sys.path`."""
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(entry_points)
    importlib.invalidate_caches()
    catalogue.refresh()
    return site
