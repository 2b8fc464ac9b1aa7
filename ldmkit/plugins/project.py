"""A plugin's `pyproject.toml` read before it is installed: what its entry points name, and what would not work.

Does not import the plugin, nor torch.
"""

from __future__ import annotations

import ast
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ldmkit.errors import PluginError, suggest
from ldmkit.plugins.catalogue import incompatible, rivals
from ldmkit.plugins.installed import HOME, KIND_OF, Entry, is_home, unfit
from ldmkit.plugins.kinds import GROUPS

_LARGEST = 1 << 20

Code = Literal[
    "unknown-group", "no-parts", "bad-name", "twice", "clash", "bad-value", "no-module", "no-class", "no-requirement",
    "incompatible",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """Something in a project's file.

    Args:
        fault: whether it keeps a part from working; False for what should be known.
        part: `kind:name`; "" for the whole distribution.
        remedy: what to do about it.
    """

    code: Code
    fault: bool
    part: str
    cause: str
    remedy: str


@dataclass(frozen=True)
class Project:
    """What a `pyproject.toml` says of a distribution.

    Args:
        roots: folders from which its modules are imported.
        entries: entry points of ldmkit's groups; their distribution and version are the project's.
    """

    name: str
    version: str
    roots: tuple[Path, ...]
    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...]


def read_project(path: Path) -> Project:
    """Read a plugin's project file and compare it with the source tree beside it and with what is installed.

    Raises:
        PluginError: `bad-project`: the file is absent, is not TOML, or has no `[project]` with a name.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise PluginError("bad-project", "larger than 1 MB", where=str(path))
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # both kinds of ValueError: no UTF-8, no TOML
        raise PluginError("bad-project", f"cannot be read: {error}", where=str(path)) from None
    about = data.get("project") or _table(data, "tool", "poetry")
    if not isinstance(about, Mapping) or not isinstance(about.get("name"), str):
        fits = '[project] with name = "my-parts"'
        raise PluginError("bad-project", "no [project] table with a name", where=str(path), fits=fits)
    name, version = about["name"], str(about.get("version", "0"))
    requires = _requirements(about)
    found: list[Finding] = list(_requirement(name, requires))
    entries: dict[tuple[str, str], Entry] = {}
    for group, points in _groups(data):
        _read_group(group, points, (name, version, tuple(filter(is_home, requires))), entries, found)
    if not any(True for _ in _groups(data)):
        groups = ", ".join(GROUPS.values())
        what = "no entry point of a group that ldmkit reads"
        found.append(
            Finding("no-parts", True, "", what, f'[project.entry-points."{GROUPS["sampler"]}"]; groups: {groups}')
        )
    roots = _roots(data, path.resolve().parent)
    for entry in entries.values():
        found += _named(entry, roots)
    return Project(name, version, roots, tuple(entries.values()), tuple(found))


def _table(data: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        data = data.get(key, {}) if isinstance(data, Mapping) else {}
    return data if isinstance(data, Mapping) else {}


def _groups(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Entry-point groups that are ldmkit's, or are spelt as if they were meant to be."""
    poetry = _table(data, "tool", "poetry", "plugins")
    for group, points in {**poetry, **_table(data, "project", "entry-points")}.items():
        if isinstance(points, Mapping) and (group in KIND_OF or _meant(group)):
            yield group, points


def _meant(group: str) -> bool:
    return group.split(".")[0].strip() == HOME or suggest(group, KIND_OF).startswith("did you mean")


def _read_group(
    group: str,
    points: Mapping[str, Any],
    about: tuple[str, str, tuple[str, ...]],
    entries: dict[tuple[str, str], Entry],
    found: list[Finding],
) -> None:
    kind = KIND_OF.get(group)
    if kind is None:
        what = f"{', '.join(points)} in group {group!r}, which ldmkit does not read"
        found.append(Finding("unknown-group", True, "", what, suggest(group, KIND_OF)))
        return
    dist, version, requires = about
    for written, value in points.items():
        name = unicodedata.normalize("NFC", written)
        part = f"{kind}:{name}"
        if (why := unfit(name)) is not None:
            found.append(
                Finding("bad-name", True, part, why, "visible letters and digits of one alphabet, -, _, . or +")
            )
        elif not isinstance(value, str) or not value.strip():
            found.append(Finding("bad-value", True, part, f"its value is {value!r}", '"package.module:Class"'))
        else:
            entry = Entry(kind, name, value.split("[")[0].strip(), dist, version, requires)
            entries[kind, name] = entry
            found += _clash(entry, part)


def _clash(entry: Entry, part: str) -> Iterator[Finding]:
    others = rivals(entry)
    if not others:
        return
    who = " and ".join(f"{other.dist} {other.version}" for other in others)
    home = any(other.dist == HOME for other in others)
    means = "the name means the in-tree part" if home else "the name alone is ambiguous then"
    yield Finding(
        "clash", False, part, f"{who} has a {part} as well: {means}", f"another name, or use {entry.qualified!r}"
    )


def _requirements(about: Mapping[str, Any]) -> list[str]:
    found = about.get("dependencies", [])
    if isinstance(found, Mapping):  # Poetry: name -> version
        return [
            name if spec == "*" else f"{name}{spec if str(spec)[:1] in '<>=!~' else ''}" for name, spec in found.items()
        ]
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _requirement(name: str, requires: list[str]) -> Iterator[Finding]:
    home = tuple(filter(is_home, requires))
    if not home and name != HOME:
        what = f"{name} does not say that it needs ldmkit"
        yield Finding("no-requirement", False, "", what, 'dependencies = ["ldmkit>=0.1"]')
    elif name != HOME and (why := incompatible(home)) is not None:
        yield Finding("incompatible", True, "", why, "a range that holds this version of ldmkit")


def _roots(data: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Folders that modules are imported from: those the build says, then `src`, then the project's own."""
    tool = _table(data, "tool", "setuptools")
    said = [tool.get("package-dir", {}).get("") if isinstance(tool.get("package-dir"), Mapping) else None]
    where = _table(tool, "packages", "find").get("where", [])
    said += where if isinstance(where, list) else [where]
    packages = _table(data, "tool", "hatch", "build", "targets", "wheel").get("packages", [])
    said += [str(Path(one).parent) for one in packages if isinstance(one, str)] if isinstance(packages, list) else []
    folders = [folder / one for one in (*said, "src", ".") if isinstance(one, str)]
    return tuple(dict.fromkeys(one.resolve() for one in folders if one.is_dir()))


def _named(entry: Entry, roots: tuple[Path, ...]) -> Iterator[Finding]:
    """Whether the module and the attribute that an entry point names are in the source tree."""
    part = f"{entry.kind}:{entry.name}"
    module, colon, attribute = entry.value.partition(":")
    if entry.kind in GROUPS and not (colon and attribute):
        yield Finding("bad-value", True, part, f"{entry.value!r} names no class", f'"{module}:Class"')
        return
    places = [root.joinpath(*module.split(".")) for root in roots]
    files = [file for at in places for file in (at.with_suffix(".py"), at / "__init__.py") if file.is_file()]
    if not files and not any(at.is_dir() for at in places):
        known = {_dotted(file, root) for root in roots for file in _sources(root)}
        where = ", ".join(map(str, roots))
        yield Finding("no-module", True, part, f"there is no module {module!r} in {where}", suggest(module, known))
    elif files and entry.kind in GROUPS and (names := _defined(files[0])) is not None:
        first = attribute.split(".")[0]
        if first not in names:
            classes = {name for name in names if name[:1].isupper()}
            yield Finding("no-class", True, part, f"{files[0]} has no {first!r}", suggest(first, classes))


def _sources(root: Path) -> Iterator[Path]:
    """Python files of packages directly inside a root, and single modules in it."""
    yield from root.glob("*.py")
    for package in root.glob("*/__init__.py"):
        yield from package.parent.rglob("*.py")


def _dotted(file: Path, root: Path) -> str:
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _defined(file: Path) -> set[str] | None:
    """Names at the top of a module; None if it cannot be known without running it."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):  # the import tells what is wrong with it
        return None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            if any(one.name == "*" for one in node.names):
                return None
            names |= {one.asname or one.name for one in node.names}
    return None if "__getattr__" in names else names
