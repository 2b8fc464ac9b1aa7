"""The plugin catalogue (metadata only) and the loader in front of it. Free of torch.

Listing reads entry-point metadata and imports nothing. A part is imported at its first use, by itself, in
its own `try`, and checked against the contract of its kind; one broken plugin hurts nobody else.

Environment: LDMKIT_PLUGINS_ALLOW and LDMKIT_PLUGINS_DENY take comma-separated patterns that match a
distribution, `kind:name` or `dist:name`; LDMKIT_SAFE_MODE=1 leaves in-tree parts only.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib import import_module, metadata
from typing import Any, Literal

from ldmkit.errors import PluginError, suggest
from ldmkit.kinds import COMMANDS_GROUP, GROUPS, HOOKS_GROUP, MODELS_GROUP

HOME = "ldmkit"
"""The distribution whose parts are in-tree."""

Status = Literal["ok", "optional", "incompatible", "failed", "disabled"]

_BARRED: tuple[Status, ...] = ("disabled", "incompatible")


@dataclass(frozen=True)
class Entry:
    """One line of the catalogue. `kind` is a kind of part, or `hooks`, `command`, `model`."""

    kind: str
    name: str
    value: str
    dist: str
    version: str
    requires: tuple[str, ...] = ()

    @property
    def qualified(self) -> str:
        """`dist:name`, which is unique within a kind."""
        return f"{self.dist}:{self.name}"


@dataclass(frozen=True)
class Verdict:
    """Status of an entry, and why where it is not `ok`."""

    status: Status
    reason: str = ""


_failures: dict[tuple[str, str, str], Verdict] = {}
_forgetters: list[Callable[[], None]] = []


def catalogue() -> tuple[Entry, ...]:
    """Everything installed, in-tree first, then by distribution and name. Reads metadata only."""
    return _catalogue(tuple(sys.path))


@lru_cache(maxsize=4)
def _catalogue(_path: tuple[str, ...]) -> tuple[Entry, ...]:
    kinds = {group: kind for kind, group in GROUPS.items()}
    kinds |= {HOOKS_GROUP: "hooks", COMMANDS_GROUP: "command", MODELS_GROUP: "model"}
    found: dict[Entry, None] = {}
    seen: set[str] = set()
    for dist in metadata.distributions():
        name = dist.name
        if not name or name.lower() in seen:
            continue
        seen.add(name.lower())
        found |= dict.fromkeys(_entries(dist, name, kinds))
    return tuple(sorted(found, key=lambda e: (e.kind, e.dist != HOME, e.dist, e.name)))


def _entries(dist: metadata.Distribution, name: str, kinds: dict[str, str]) -> Iterator[Entry]:
    version = dist.version or "?"
    try:
        points = [point for point in dist.entry_points if point.group in kinds]
        requires = tuple(r for r in (dist.requires or ()) if _is_home(r)) if points and name != HOME else ()
    except Exception as error:  # one damaged metadata file must not hide every other distribution
        broken = Entry("unreadable", "entry_points.txt", "", name, version)
        _failures[_key(broken)] = Verdict("failed", f"its metadata cannot be read: {error}")
        yield broken
        return
    for point in points:
        yield Entry(kinds[point.group], point.name, point.value, name, version, requires)


def _is_home(requirement: str) -> bool:
    return re.split(r"[^A-Za-z0-9_.-]", requirement.strip(), maxsplit=1)[0].lower() == HOME


def _key(entry: Entry) -> tuple[str, str, str]:
    return entry.kind, entry.dist, entry.name


def verdict(entry: Entry) -> Verdict:
    """Status from metadata, settings and earlier failures; nothing is imported to find out."""
    if (why := _barred(entry)) is not None:
        return Verdict("disabled", why)
    if (why := _incompatible(entry.requires)) is not None:
        return Verdict("incompatible", why)
    return _failures.get(_key(entry), Verdict("ok"))


def note_failure(entry: Entry, error: Exception) -> None:
    """Remember why an entry cannot be used, for `verdict`."""
    missing = isinstance(error, PluginError) and error.code == "plugin.missing-dependency"
    reason = error.what if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
    _failures[_key(entry)] = Verdict("optional" if missing else "failed", reason)


def _barred(entry: Entry) -> str | None:
    if os.environ.get("LDMKIT_SAFE_MODE", "") not in ("", "0") and entry.dist != HOME:
        return "safe mode: in-tree parts only"
    names = (entry.dist, f"{entry.kind}:{entry.name}", entry.qualified)
    allow, deny = _patterns("LDMKIT_PLUGINS_ALLOW"), _patterns("LDMKIT_PLUGINS_DENY")
    if any(fnmatchcase(name, pattern) for name in names for pattern in deny):
        return "denied by LDMKIT_PLUGINS_DENY"
    if allow and entry.dist != HOME and not any(fnmatchcase(n, p) for n in names for p in allow):
        return "not in LDMKIT_PLUGINS_ALLOW"
    return None


def _patterns(variable: str) -> list[str]:
    return [p.strip() for p in os.environ.get(variable, "").split(",") if p.strip()]


@cache
def _incompatible(requires: tuple[str, ...]) -> str | None:
    if not requires:
        return None
    from packaging.requirements import InvalidRequirement, Requirement

    from ldmkit import __version__

    for text in requires:
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            return f"its requirement {text!r} cannot be read"
        if wanted.name.lower() == HOME and not wanted.specifier.contains(__version__, prereleases=True):
            return f"wants {text}, this is {HOME} {__version__}"
    return None


def components(kind: str) -> tuple[str, ...]:
    """Names of the usable parts of a kind, each once, sorted; nothing is imported.

    Raises:
        PluginError: no such kind.
    """
    _check_kind(kind)
    return tuple(sorted({e.name for e in catalogue() if e.kind == kind and verdict(e).status not in _BARRED}))


def get(kind: str, name: str) -> Any:
    """The class registered as `kind:name`, or `dist:name`; imported now if it was not yet.

    Raises:
        PluginError: unknown, ambiguous (naming the qualified names that work), disabled, broken, or of another kind.
    """
    return load_entry(find(kind, name))


def find(kind: str, name: str) -> Entry:
    """The one catalogue entry for a name; the same errors as `get`, except those of importing."""
    _check_kind(kind)
    if not isinstance(name, str):
        raise PluginError("unknown", f"{name!r} is no name of a {kind}", fits="a name, or dist:name")
    entries = [e for e in catalogue() if e.kind == kind]
    matches = [e for e in entries if name in (e.name, e.qualified)]
    if not matches:
        raise PluginError("unknown", f"no {kind} is called {name!r}", fits=suggest(name, {e.name for e in entries}))
    usable = [e for e in matches if verdict(e).status not in _BARRED]
    if not usable:
        raise _barred_error(matches[0], verdict(matches[0]))
    if len(usable) > 1:
        qualified = " or ".join(repr(e.qualified) for e in usable)
        dists = " and ".join(f"{e.dist} {e.version}" for e in usable)
        raise PluginError("ambiguous", f"{kind} {name!r} comes from {dists}", fits=f"use {qualified}")
    return usable[0]


def load_entry(entry: Entry) -> Any:
    """Import one entry and check it against its contract; failures are remembered for `verdict`."""
    judged = verdict(entry)
    if judged.status in _BARRED:
        raise _barred_error(entry, judged)
    try:
        return _load(entry)
    except PluginError as error:
        note_failure(entry, error)
        raise


def _barred_error(entry: Entry, judged: Verdict) -> PluginError:
    what = f"{entry.kind} {entry.name!r} of {entry.dist} cannot be used: {judged.reason}"
    if judged.status == "disabled":
        return PluginError("disabled", what)
    return PluginError("incompatible", what, fits=f"another version of {entry.dist}")


@cache
def _load(entry: Entry) -> Any:
    where = f"{entry.kind}:{entry.name} ({entry.dist} {entry.version}, {entry.value})"
    module, _, attribute = entry.value.partition(":")
    try:
        loaded: Any = import_module(module)
        for part in filter(None, attribute.split(".")):
            loaded = getattr(loaded, part)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise PluginError("import-failed", f"there is no module {error.name!r}", where=where) from error
        raise PluginError("missing-dependency", f"needs {error.name!r}, which is not installed", where=where) from error
    except (Exception, SystemExit) as error:
        raise PluginError("import-failed", f"{type(error).__name__}: {error}", where=where) from error
    if entry.kind in GROUPS:
        _check_contract(entry.kind, loaded, where)
    return loaded


def _check_contract(kind: str, loaded: Any, where: str) -> None:
    from ldmkit import contracts

    contract = getattr(contracts, kind.capitalize())
    if not inspect.isclass(loaded):
        raise PluginError(
            "not-a-class", f"{loaded!r} is no class", where=where, fits=f"a subclass of {contract.__name__}"
        )
    if not issubclass(loaded, contract):
        raise PluginError("wrong-kind", f"{loaded.__name__} is no {contract.__name__}", where=where)
    if inspect.isabstract(loaded):
        absent = ", ".join(sorted(getattr(loaded, "__abstractmethods__", ())))
        raise PluginError("abstract", f"{loaded.__name__} does not implement {absent}", where=where)


def name_of(kind: str, cls: type) -> Entry:
    """The catalogue entry that a part's class came from, for specs and recipes.

    Raises:
        PluginError: the class is not registered.
    """
    path = f"{cls.__module__}:{cls.__qualname__}"
    for entry in catalogue():
        if entry.kind == kind and (entry.value == path or _loaded_is(entry, cls)):
            return entry
    raise PluginError(
        "unregistered", f"{path} is not registered as a {kind}", fits="an entry point in its pyproject.toml"
    )


def registered_name(entry: Entry) -> str:
    """What `find` takes for exactly this entry: its name where that is unique, else `dist:name`."""
    try:
        find(entry.kind, entry.name)
    except PluginError:
        return entry.qualified
    return entry.name


def _loaded_is(entry: Entry, cls: type) -> bool:
    module, _, attribute = entry.value.partition(":")
    loaded: Any = sys.modules.get(module)
    for part in attribute.split("."):
        loaded = getattr(loaded, part, None)
    return loaded is cls


def refresh() -> None:
    """Forget the catalogue and remembered failures, after distributions were installed or removed."""
    _catalogue.cache_clear()
    _load.cache_clear()
    _failures.clear()
    for forget in _forgetters:
        forget()


def on_refresh(forget: Callable[[], None]) -> None:
    """Have `refresh` call something else that depends on what is installed."""
    _forgetters.append(forget)


def _check_kind(kind: str) -> None:
    if not isinstance(kind, str) or kind not in GROUPS:
        raise PluginError("unknown-kind", f"there is no kind {kind!r}", fits=suggest(str(kind), GROUPS))
