"""What `pip install -e` leaves of a distribution, without pip: its metadata in a folder, its sources where they are."""

from __future__ import annotations

import tomllib
from pathlib import Path


def install(project: Path, site: Path) -> list[Path]:
    """Write the metadata of `project` into `site`; both returned folders belong on the path."""
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = site / f"{declared['name'].replace('-', '_')}-{declared['version']}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    head = f"Metadata-Version: 2.4\nName: {declared['name']}\nVersion: {declared['version']}\n"
    requires = "".join(f"Requires-Dist: {text}\n" for text in declared["dependencies"])
    (folder / "METADATA").write_text(head + requires, encoding="utf-8")
    groups = declared["entry-points"].items()
    points = (
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items()) for group, lines in groups
    )
    (folder / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")
    return [site, project / "src"]
