"""Each folder of `ldmkit_checkpoints` is one published format; imports between them go in one direction."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import ldmkit_checkpoints

ROOT = Path(ldmkit_checkpoints.__file__).parent
PACKAGE = "ldmkit_checkpoints"


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, in functions and for types too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == PACKAGE)


def room(module: str) -> str:
    """The folder of a module, or the module itself where it stands at the top."""
    return module.split(".")[1]


def test_formats_import_one_another_in_one_direction() -> None:
    graph: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        own = path.relative_to(ROOT).with_suffix("").parts[0]
        graph.setdefault(own, set()).update(room(module) for module in imported(path))
        graph[own].discard(own)
    order = [*TopologicalSorter(graph).static_order()]  # raises CycleError
    folders = [name for name in order if (ROOT / name).is_dir()]
    assert len(folders) >= 7 and order[-1] == "hooks"
    assert folders.index("diffusers") < folders.index("compvis") < folders.index("lora")


def test_every_folder_says_which_format_it_is() -> None:
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"]
    said = {path.name: ast.get_docstring(ast.parse((path / "__init__.py").read_text())) for path in folders}
    assert all(said.values()) and len({*said.values()}) == len(folders) >= 7
