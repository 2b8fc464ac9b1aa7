"""One-line help for plugin commands, read from their source, since listings import no plugins."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

from ldmkit.plugins.installed import Entry

_LARGEST = 1 << 20


def summary(entry: Entry) -> str:
    """The first sentence of the docstring of the entry's module, else the name of its distribution.

    A command name at the beginning, as in "`ldmkit train`: train a stage by a recipe.", is dropped.
    """
    said = _docstring(entry.value.partition(":")[0])
    first = " ".join(said.split("\n\n")[0].split())
    head, colon, rest = first.partition(": ")
    line = rest if colon and head.strip("`").startswith("ldmkit") else first
    return f"{line[:1].upper()}{line[1:]}" if line else f"From {entry.dist} {entry.version}."


def _docstring(module: str) -> str:
    """The docstring of a module, without importing it; "" if it has none or cannot be read."""
    top, *inner = module.split(".")
    try:
        found = find_spec(top)
        if found is None:
            return ""
        if found.submodule_search_locations is None:
            file = Path(found.origin or "")
        else:
            file = Path(next(iter(found.submodule_search_locations))).joinpath(*inner)
            file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
        if file.stat().st_size > _LARGEST:
            return ""
        return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    except (ImportError, OSError, SyntaxError, ValueError, StopIteration):
        return ""
