"""One word, one meaning: no module of ours gives a public name of `ldmkit` to something else."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import ldmkit

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("ldmkit", "plugins", "conditioners", "samplers")
OPTIONS = ROOT / "ldmkit" / "cli" / "options.py"
"""Declares the options of the command line, by the names of their flags."""


def defined(path: Path) -> Iterator[str]:
    """Names that a module gives to classes, functions and types of its own."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name) and target.id[0].isupper())


def homes() -> dict[str, Path]:
    """Public name -> the file that defines it; classes alone, for functions are verbs of many things."""
    classes = {name: value for name in ldmkit.__all__ if inspect.isclass(value := getattr(ldmkit, name))}
    return {name: Path(inspect.getfile(value)).resolve() for name, value in classes.items()}


def test_public_names_mean_one_thing() -> None:
    public, twice = homes(), []
    files = [path for root in SOURCES for path in (ROOT / root).rglob("*.py") if path != OPTIONS]
    assert len(files) > 300 and len(public) > 70
    for path in files:
        twice += [f"{path.relative_to(ROOT)}: {name}" for name in defined(path) if public.get(name, path) != path]
    assert not twice, "another word for what is not the public one"
