"""docs/architecture.md and its drawing name what is there: folders, modules, floors, packages."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
DRAWING = (ROOT / "docs" / "images" / "architecture.svg").read_text(encoding="utf-8")
FLOORS = {place: int(floor) for floor, place in re.findall(r"^\| (\d+) \| `([^`]+)` \|", PAGE, re.M)}
"""Place -> floor, from the page's first table."""


@pytest.fixture(scope="module")
def rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("import_rules", ROOT / ".ci" / "import_rules.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _place(module: str) -> str:
    """The folder (with a slash behind it) or file of a module."""
    path = ROOT.joinpath(*module.split("."))
    if module == "ldmkit":
        return "ldmkit/__init__.py"
    return f"{path.relative_to(ROOT)}/" if path.is_dir() else f"{path.relative_to(ROOT)}.py"


def _tracked_folders(folder: Path) -> set[str]:
    """Names of the folders that hold Python files."""
    return {path.parent.name for path in folder.glob("*/__init__.py")}


def test_every_folder_and_top_module_of_the_core_is_listed() -> None:
    top = {f"ldmkit/{path.name}" for path in (ROOT / "ldmkit").glob("*.py")}
    top |= {f"ldmkit/{name}/" for name in _tracked_folders(ROOT / "ldmkit")}
    assert {place for place in FLOORS if place.rstrip("/").count("/") == 1} == top


def test_floors_are_those_of_the_import_rules(rules: ModuleType) -> None:
    assert {_place(module): floor for module, floor in rules.FLOORS.items()} == FLOORS
    assert list(FLOORS.values()) == sorted(FLOORS.values())


def test_every_package_of_parts_is_listed(rules: ModuleType) -> None:
    listed = re.findall(r"^\| `(\w+/ldmkit_\w+)/` \|", PAGE, re.M)
    roots = [source for source in rules.SOURCES if source != ROOT]
    there = {f"{root.name}/{name}" for root in roots for name in _tracked_folders(root)}
    assert sorted(listed) == sorted(there) and {name.split("/")[1] for name in listed} == {*rules.ALLOWED} - {"ldmkit"}


@pytest.mark.parametrize(("text", "least"), [(PAGE, 35), (DRAWING, 20)], ids=["page", "drawing"])
def test_every_path_exists(text: str, least: int) -> None:
    found = set(re.findall(r"(?:[\w.]+/)+(?:\w+\.\w+)?", re.sub(r"<[^>]+>", " ", text)))
    roots = (ROOT, ROOT / "docs")
    assert sorted(path for path in found if not any((root / path).exists() for root in roots)) == []
    assert len(found) >= least, "the paths are no longer found in the text"


def test_every_package_in_the_drawing_exists() -> None:
    named = set(re.findall(r"\bldmkit_\w+", DRAWING))
    assert named and all(list(ROOT.glob(f"*/{name}/__init__.py")) for name in named)
