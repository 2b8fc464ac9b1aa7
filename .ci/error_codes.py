"""The table of error codes, read from the source: `python .ci/error_codes.py --write` makes docs/errors.md.

A code is the family of the class that is raised and its first argument; the meaning is the message itself, with
`...` where it fills in a value.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "errors.md"
PACKAGES = ("ldmkit", "plugins", "conditioners", "samplers")

FAMILIES = {
    "InputError": ("input",), "SpecError": ("spec",), "CompositionError": ("compose",), "SourceError": ("source",),
    "WeightsError": ("weights",), "PluginError": ("plugin",), "RunError": ("run",),
}  # fmt: skip

GENERIC = {
    "ldmkit/contracts/value.py": ("spec", "input", "source"), "ldmkit/files/json.py": ("source", "input"),
    "ldmkit/files/reading.py": ("source", "input"),
}  # fmt: skip
"""Files with functions that raise the class they are given: the classes that their callers give."""

MEANINGS = {
    "compose.other-network": "an adapter reads or adds what this denoiser has not",
    "input.tracker-missing": "a tracker whose package is not installed",
    "input.usage": "arguments that the command does not take",
    "input.picture-too-large": "a picture, or what its file claims to be, has too many pixels",
    "run.system": "the operating system refused something",
    "source.digest-differs": "a file of a saved model is not what was saved",
    "source.checkpoint-damaged": "a training checkpoint whose bytes changed, or that lacks what the run needs",
    "source.no-weights": "a folder that should hold weights holds none",
    "source.yaml-tag": "a tag that is not one of YAML's own",
}
"""For messages that are put together elsewhere."""

INTRO = """# Error codes

Every error that ldmkit raises on purpose is a `ldmkit.LdmkitError` with a stable `code`, a sentence `what`, and,
where that can be said, `where` it was wrong and what `fits`. Programs may match on codes; they do not change.
The family decides the command line's exit code (see `docs/cli.md`).

| family | class | meaning |
|---|---|---|
| `input` | `InputError`, also a `ValueError` | a value given by the caller cannot be used |
| `spec` | `SpecError` | a pipeline spec or a part's config is not valid |
| `compose` | `CompositionError` | valid parts that do not fit together |
| `source` | `SourceError` | a model or file could not be found, recognised or read safely |
| `weights` | `WeightsError` | tensors that do not match the module that wants them |
| `plugin` | `PluginError` | a plugin is absent, broken, ambiguous or not allowed |
| `run` | `RunError` | something went wrong while a pipeline was running |

In the meanings, `...` stands for what the message fills in. This page is made by `python .ci/error_codes.py --write`.
"""


class Raised(NamedTuple):
    """One place that makes an error."""

    code: str
    meaning: str
    place: str


def raised() -> list[Raised]:
    """Every code in the source, sorted."""
    found = {item for package in PACKAGES for path in (ROOT / package).rglob("*.py") for item in _in_file(path)}
    return sorted(found)


def _in_file(path: Path) -> Iterator[Raised]:
    place = str(path.relative_to(ROOT))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.Lambda, ast.Module)):
            continue
        for call in _own_calls(function):
            families = FAMILIES.get(call.func.id, ()) if isinstance(call.func, ast.Name) else ()
            if isinstance(call.func, ast.Name) and call.func.id == "error":
                families = GENERIC.get(place, ())
            meaning = _text(call.args[1], function) if len(call.args) > 1 else ""
            for code in _codes(call):
                for family in families:
                    yield Raised(f"{family}.{code}", meaning, place)


def _own_calls(function: ast.AST) -> Iterator[ast.Call]:
    """Calls inside a function, those of functions inside it left out."""
    open_nodes = list(ast.iter_child_nodes(function))
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.Call):
            yield node
        open_nodes += ast.iter_child_nodes(node)


def _codes(call: ast.Call) -> list[str]:
    """The constants that the first argument may be."""
    if not call.args:
        return []
    first = call.args[0]
    nodes = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
    constants = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [code for code in constants if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)]


def _text(node: ast.expr, function: ast.AST) -> str:
    """A message with `...` for its values; a name is its last assignment before it."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values]
        return re.sub(r"(\.\.\.)+", "...", "".join(parts))
    if isinstance(node, ast.BinOp):
        return _text(node.left, function) + _text(node.right, function)
    if isinstance(node, ast.Name):
        before = [
            s
            for s in ast.walk(function)
            if isinstance(s, ast.Assign) and ast.unparse(s.targets[0]) == node.id and s.lineno < node.lineno
        ]
        if before:
            return _text(max(before, key=lambda s: s.lineno).value, function)
    return "..."


def page() -> str:
    """The whole of docs/errors.md."""
    meanings: dict[str, list[str]] = {}
    places: dict[str, list[str]] = {}
    for item in raised():
        _add(meanings.setdefault(item.code, []), item.meaning)
        _add(places.setdefault(item.code, []), item.place)
    lines = [INTRO, "| code | meaning | raised in |", "|---|---|---|"]
    for code, texts in meanings.items():
        said = "; ".join(text for text in texts if text.strip(". ")) or MEANINGS[code]
        said = " ".join(said.replace("|", "\\|").split())
        lines.append(f"| `{code}` | {said} | {', '.join(f'`{p}`' for p in places[code])} |")
    return "\n".join(lines) + "\n"


def _add(items: list[str], item: str) -> None:
    if item not in items:
        items.append(item)


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    print(f"{len({item.code for item in raised()})} codes")
