"""Who may import whom, read from the source: `python .ci/import_rules.py` prints every violation.

The core imports no plugin package; plugin packages import the core, and one another only downwards in the order
of the architecture; imports inside the core point down its floors; no cycles among modules, through lazy imports and
those for type checkers either; diffusers nowhere; transformers and torch's friends only lazily.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCES = (ROOT, ROOT / "plugins", ROOT / "conditioners", ROOT / "samplers")

ALLOWED: dict[str, set[str]] = {
    "ldmkit": set(),
    "ldmkit_codecs": {"ldmkit", "ldmkit_denoisers"},
    "ldmkit_denoisers": {"ldmkit"},
    "ldmkit_processes": {"ldmkit"},
    "ldmkit_samplers": {"ldmkit"},
    "ldmkit_conditioners": {"ldmkit"},
    "ldmkit_adapters": {"ldmkit", "ldmkit_denoisers"},
}
PARTS = set(ALLOWED)
ALLOWED |= {
    "ldmkit_drawing": {"ldmkit"},
    "ldmkit_checkpoints": PARTS,
    "ldmkit_extractors": {"ldmkit", "ldmkit_conditioners", "ldmkit_checkpoints"},
    "ldmkit_training": PARTS | {"ldmkit_checkpoints", "ldmkit_drawing"},
    "ldmkit_captions": {"ldmkit"},
    "ldmkit_compare": {"ldmkit", "ldmkit_drawing", "ldmkit_samplers"},
    "ldmkit_models": set(),
    "ldmkit_authoring": {"ldmkit"},
    "ldmkit_miniworld": PARTS | {"ldmkit_checkpoints", "ldmkit_drawing", "ldmkit_training"},
}
FLOORS: dict[str, int] = {
    **dict.fromkeys(("ldmkit.errors", "ldmkit.printable", "ldmkit.bounds", "ldmkit.version"), 0),
    "ldmkit.files": 1,
    "ldmkit.contracts": 2,
    "ldmkit.plugins": 3,
    **dict.fromkeys(("ldmkit.models", "ldmkit.plans", "ldmkit.plugins.hooks"), 4),
    "ldmkit.run": 5,
    **dict.fromkeys(("ldmkit.pipeline", "ldmkit.cascade", "ldmkit.loading", "ldmkit.replaying"), 6),
    "ldmkit.testing": 7,
    **dict.fromkeys(("ldmkit.plugins.doctor", "ldmkit.cli", "ldmkit.__main__"), 8),
    "ldmkit": 9,
}
"""Folder or module of the core -> its floor: it imports what stands there or below. The longest name counts."""
PUBLIC = ("ldmkit", "ldmkit.bounds", "ldmkit.testing")
"""What everyone may import of the core; in-tree packages import the same names as others."""
COMMANDS = {"ldmkit.cli": "their commands read and answer as the core's do"}
PRIVATE: dict[str, dict[str, str]] = {
    "ldmkit_authoring": {**COMMANDS, "ldmkit.plugins": "it writes what the catalogue lists"},
    "ldmkit_captions": {**COMMANDS, "ldmkit.models": "digests of what a captioner reads"},
    "ldmkit_checkpoints": {
        "ldmkit.files": "files of other people, read as carefully as the core's own",
        "ldmkit.models": "it reads into a Source and writes folders as the core does",
        "ldmkit.printable": "names of keys in reports",
    },
    "ldmkit_compare": {
        **COMMANDS,
        "ldmkit.contracts.arguments": "numbers of steps, checked as a call's",
        "ldmkit.files.json": "where results are written",
        "ldmkit.run": "prepared runs are made again for other samplers",
    },
    "ldmkit_conditioners": {
        "ldmkit.contracts.value": "one input, validated as the core validates",
        "ldmkit.files.pictures": "tensors of pictures, checked as the core's own readers do",
        "ldmkit.run": "padding and finite numbers, as a run has them",
    },
    "ldmkit_denoisers": {"ldmkit.plans.graphed": "tensors of a context, as a graph finds them"},
    "ldmkit_extractors": {"ldmkit.files": "keypoints and weights of other people, read as carefully as pictures"},
    "ldmkit_miniworld": {
        **COMMANDS,
        "ldmkit.files.json": "where results are written",
        "ldmkit.models.abilities": "what a model proposes",
        "ldmkit.models.locate": "the model that is there by default",
        "ldmkit.run": "its evaluation prepares and estimates many runs",
    },
    "ldmkit_training": {
        **COMMANDS,
        "ldmkit.contracts": "checks of numbers and tensors",
        "ldmkit.files": "data of other people, read as carefully as the core's own",
        "ldmkit.loading": "a model to start from",
        "ldmkit.models": "parts are composed, filled and saved one by one",
        "ldmkit.printable": "tables in a terminal",
        "ldmkit.run": "a training step is half of a run: inputs, conditions, loss",
    },
}
"""Package -> what else it may import of the core, and why."""
NEVER = {"diffusers", "pytest"}
PYTEST_PLUGIN = "ldmkit.testing.pytest_plugin"
"""The one module that pytest imports, not we."""
LAZY = {"transformers", "tokenizers", "huggingface_hub", "accelerate"}
LAZY_FREE = {f"ldmkit_conditioners.{name}" for name in ("bpe", "tokenizer_files", "vocabulary")}
"""Modules that may import a lazy library at their top: they are themselves imported with their plugin alone."""


class Import(NamedTuple):
    """One import statement: `module` wants `target`; `top` where it runs as the module is imported."""

    module: str
    target: str
    line: int
    top: bool


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of ours."""
    found: dict[str, Path] = {}
    for source in SOURCES:
        for package in sorted(source.glob("ldmkit*/")):
            if not (package / "__init__.py").is_file():
                continue
            for path in package.rglob("*.py"):
                parts = path.relative_to(source).with_suffix("").parts
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path) -> Iterator[Import]:
    """Every import of a module, those inside of functions and for type checkers too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, id(node) not in late)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield Import(module, "relative", node.lineno, id(node) not in late)
                continue
            for alias in node.names:
                yield Import(module, f"{node.module}.{alias.name}", node.lineno, id(node) not in late)


def floor(module: str) -> int:
    """The floor that a module of the core stands on."""
    name = module
    while name not in FLOORS:
        name = name.rpartition(".")[0]
    return FLOORS[name]


def private(package: str, target: str) -> bool:
    """Whether a module of the core is none of those that a package may import."""
    inside = package == "ldmkit" or target.split(".")[0] != "ldmkit" or target in PUBLIC
    allowed = (*PUBLIC[1:], *PRIVATE.get(package, ()))
    return not inside and not any(f"{target}.".startswith(f"{name}.") for name in allowed)


def upward(module: str, target: str) -> bool:
    """Whether an import inside of the core points up; `ldmkit` itself, which exports all of it, only names things."""
    inside = module.split(".")[0] == target.split(".")[0] == "ldmkit"
    return inside and module != "ldmkit" and floor(module) < floor(target)


def violations() -> list[str]:
    """One line for every import that the rules forbid."""
    known = modules()
    graph: dict[str, set[str]] = {}
    problems: list[str] = []
    for module, path in known.items():
        package = module.split(".")[0]
        for item in imports(module, path):
            place, target = f"{path.relative_to(ROOT)}:{item.line}", item.target.split(".")[0]
            if item.target == "relative":
                problems.append(f"{place}: relative import")
            elif target in NEVER and (target, module) != ("pytest", PYTEST_PLUGIN):
                problems.append(f"{place}: {target} is a tool of the tests")
            elif target in LAZY and item.top and module not in LAZY_FREE:
                problems.append(f"{place}: {target} is imported at the top, not where it is needed")
            elif target.startswith("ldmkit") and target not in {package, *ALLOWED.get(package, set())}:
                problems.append(f"{place}: {package} may not import {target}")
            if target.startswith("ldmkit"):
                name = item.target if item.target in known else item.target.rpartition(".")[0]
                if private(package, name):
                    problems.append(f"{place}: {package} imports {name}, which is not public: from ldmkit import ...")
                if upward(module, name):
                    problems.append(f"{place}: {module} stands below {name}, and may not import it")
                if name != "ldmkit" and name != module:  # it exports what all others make, by name
                    graph.setdefault(module, set()).add(name)
        if package not in ALLOWED:
            problems.append(f"{path.relative_to(ROOT)}: package {package} has no rule")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        problems.append("cycle: " + " -> ".join(error.args[1]))
    return problems


if __name__ == "__main__":
    found = violations()
    print("\n".join(found) or "imports keep the rules")
    sys.exit(bool(found))
