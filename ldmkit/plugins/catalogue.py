"""The plugin catalogue, built from metadata, and the loader. Does not import torch.

Listing reads entry-point metadata and imports nothing. Each part is imported separately at its first use and checked
against the contract of its kind, so that a broken plugin does not affect the others.

Environment: LDMKIT_PLUGINS_ALLOW and LDMKIT_PLUGINS_DENY take comma-separated patterns that match a
distribution, `kind:name` or `dist:name`; LDMKIT_SAFE_MODE=1 restricts the catalogue to in-tree parts; LDMKIT_PARTS
names a parts file (see `ldmkit.plugins.local`), which is executed by the first listing.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from ldmkit.errors import PluginError, shown, suggest
from ldmkit.plugins.admission import admit
from ldmkit.plugins.deprecation import renamed_part
from ldmkit.plugins.installed import HOME as HOME
from ldmkit.plugins.installed import Entry as Entry
from ldmkit.plugins.installed import Installed, Problem, normal, scan
from ldmkit.plugins.kinds import GROUPS
from ldmkit.plugins.local import forgetters, is_parts_file, local_entries, place_of, safe_mode, unused_file
from ldmkit.version import VERSION

if TYPE_CHECKING:
    from ldmkit.contracts.adapter import Adapter
    from ldmkit.contracts.cache import Cache
    from ldmkit.contracts.captioner import Captioner
    from ldmkit.contracts.codec import Codec
    from ldmkit.contracts.conditioner import Conditioner
    from ldmkit.contracts.data import Data
    from ldmkit.contracts.denoiser import Denoiser
    from ldmkit.contracts.extractor import Extractor
    from ldmkit.contracts.grid import Grid
    from ldmkit.contracts.guidance import Guidance
    from ldmkit.contracts.judges import Classifier, Perceptual
    from ldmkit.contracts.process import Process
    from ldmkit.contracts.rewriter import Rewriter
    from ldmkit.contracts.sampler import Sampler
    from ldmkit.contracts.stage import Stage

V = TypeVar("V", covariant=True)

Status = Literal["ok", "optional", "incompatible", "failed", "disabled"]

_BARRED: tuple[Status, ...] = ("disabled", "incompatible")


@dataclass(frozen=True)
class Verdict:
    """Status of an entry, with a reason and a remedy if it is not `ok` or needs a remark."""

    status: Status
    reason: str = ""
    remedy: str = ""


_failures: dict[tuple[str, str, str], Verdict] = {}
_forgetters: list[Callable[[], None]] = []


def catalogue() -> tuple[Entry, ...]:
    """Everything installed, in-tree first, then by distribution and name, then parts files. Reads metadata only."""
    found, local = _installed(tuple(sys.path)).entries, local_entries()
    if not _uninstalled:
        return (*found, *local) if local else found
    kept = (entry for entry in found if normal(entry.dist) not in _uninstalled)
    return (*kept, *sum(_uninstalled.values(), ()), *local)


_uninstalled: dict[str, tuple[Entry, ...]] = {}


@contextmanager
def as_installed(dist: str, entries: Sequence[Entry]) -> Iterator[None]:
    """Entries of a distribution that is not installed, or in place of its installed ones, while the block runs."""
    _uninstalled[normal(dist)] = tuple(entries)
    refresh()
    try:
        yield
    finally:
        del _uninstalled[normal(dist)]
        refresh()


def problems() -> tuple[Problem, ...]:
    """Problems in the metadata of installed distributions. Imports nothing."""
    return _installed(tuple(sys.path)).problems


@lru_cache(maxsize=4)
def _installed(_path: tuple[str, ...]) -> Installed:
    return scan()


def forbidden(problem: Problem) -> str | None:
    """Why settings exclude the whole distribution of a problem; None if they do not."""
    return _barred(Entry("distribution", problem.dist, "", problem.dist, problem.version))


def _key(entry: Entry) -> tuple[str, str, str]:
    return entry.kind, entry.dist, entry.name


def verdict(entry: Entry) -> Verdict:
    """Status from metadata, settings and earlier failures. Imports nothing."""
    if (why := _barred(entry)) is not None:
        return Verdict("disabled", why)
    if (why := incompatible(entry.requires)) is not None:
        return Verdict("incompatible", why, f"pip install --upgrade {entry.dist} ldmkit")
    if (failed := _failures.get(_key(entry))) is not None:
        return failed
    others = [e for e in rivals(entry) if _barred(e) is None and incompatible(e.requires) is None]
    if not others:
        return Verdict("ok")
    names = " and ".join(f"{e.dist} {e.version}" for e in others)
    if any(e.dist == HOME for e in others):
        return Verdict("ok", f"{entry.name!r} refers to the in-tree part", f"use {entry.qualified!r} for this one")
    if entry.dist == HOME:
        return Verdict("ok")
    return Verdict("ok", f"{names} uses the same name", f"use {entry.qualified!r}")


def rivals(entry: Entry) -> list[Entry]:
    """Entries of other distributions with the same kind and name."""
    same = _named(tuple(sys.path), local_entries()).get((entry.kind, entry.name), ())
    return [other for other in same if other.dist != entry.dist]


@lru_cache(maxsize=4)
def _named(_path: tuple[str, ...], _local: tuple[Entry, ...]) -> dict[tuple[str, str], list[Entry]]:
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in catalogue():
        found.setdefault((entry.kind, entry.name), []).append(entry)
    return found


def last_resort(entry: Entry) -> str:
    """The remedy of last resort."""
    if (file := place_of(entry.dist)) is not None:
        return f"correct {file}"
    return f"pip install --upgrade {entry.dist}, or disable it with LDMKIT_PLUGINS_DENY={entry.dist}"


def note_failure(entry: Entry, error: Exception) -> None:
    """Record why an entry cannot be used, for `verdict`."""
    status: Status = "failed"
    remedy = ""
    if isinstance(error, PluginError):
        known: dict[str, Status] = {"plugin.missing-dependency": "optional", "plugin.incompatible": "incompatible"}
        status, remedy = known.get(error.code, "failed"), error.fits or ""
    reason = error.what if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
    _failures[_key(entry)] = Verdict(status, reason, remedy or last_resort(entry))


def _barred(entry: Entry) -> str | None:
    if safe_mode() and entry.dist != HOME:
        return "safe mode: in-tree parts only"
    names = (entry.dist, normal(entry.dist), f"{entry.kind}:{entry.name}", entry.qualified)
    allow, deny = _patterns("LDMKIT_PLUGINS_ALLOW"), _patterns("LDMKIT_PLUGINS_DENY")
    if any(fnmatchcase(name, pattern) for name in names for pattern in deny):
        return "denied by LDMKIT_PLUGINS_DENY"
    if allow and entry.dist != HOME and not any(fnmatchcase(n, p) for n in names for p in allow):
        return "not in LDMKIT_PLUGINS_ALLOW"
    return None


def _patterns(variable: str) -> list[str]:
    return [p.strip() for p in os.environ.get(variable, "").split(",") if p.strip()]


@cache
def incompatible(requires: tuple[str, ...]) -> str | None:
    """Why requirements of ldmkit exclude this version of it; None if they do not."""
    if not requires:
        return None
    from packaging.requirements import InvalidRequirement, Requirement

    for text in requires:
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            return f"its requirement {text!r} cannot be read"
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        if normal(wanted.name) == HOME and not wanted.specifier.contains(VERSION, prereleases=True):
            return f"requires {text}, but this is {HOME} {VERSION}"
    return None


def components(kind: str) -> tuple[str, ...]:
    """Sorted unique names of the usable parts of a kind. Imports nothing.

    Raises:
        PluginError: no such kind.
    """
    _check_kind(kind)
    return tuple(sorted({e.name for e in catalogue() if e.kind == kind and verdict(e).status not in _BARRED}))


class ValueClass(Protocol[V]):
    """The static type that `get` returns for value kinds; the fields of the class are not known to type checkers."""

    __name__: str

    def __call__(self, *values: Any, **fields: Any) -> V:
        """A value from positional or named fields."""

    def of(self, data: Mapping[str, Any], where: str = "") -> V:
        """A value from plain data."""


@overload
def get(kind: Literal["codec"], name: str) -> type[Codec]: ...
@overload
def get(kind: Literal["denoiser"], name: str) -> type[Denoiser]: ...
@overload
def get(kind: Literal["conditioner"], name: str) -> type[Conditioner]: ...
@overload
def get(kind: Literal["adapter"], name: str) -> type[Adapter]: ...
@overload
def get(kind: Literal["perceptual"], name: str) -> type[Perceptual]: ...
@overload
def get(kind: Literal["classifier"], name: str) -> type[Classifier]: ...
@overload
def get(kind: Literal["stage"], name: str) -> type[Stage]: ...
@overload
def get(kind: Literal["sampler"], name: str) -> ValueClass[Sampler]: ...
@overload
def get(kind: Literal["process"], name: str) -> ValueClass[Process]: ...
@overload
def get(kind: Literal["grid"], name: str) -> ValueClass[Grid]: ...
@overload
def get(kind: Literal["guidance"], name: str) -> ValueClass[Guidance]: ...
@overload
def get(kind: Literal["cache"], name: str) -> ValueClass[Cache]: ...
@overload
def get(kind: Literal["extractor"], name: str) -> ValueClass[Extractor]: ...
@overload
def get(kind: Literal["captioner"], name: str) -> ValueClass[Captioner]: ...
@overload
def get(kind: Literal["rewriter"], name: str) -> ValueClass[Rewriter]: ...
@overload
def get(kind: Literal["data"], name: str) -> ValueClass[Data]: ...
@overload
def get(kind: str, name: str) -> Any: ...
def get(kind: str, name: str) -> Any:
    """The class of a kind registered as `name`, or as `dist:name`; imported on first use.

    Raises:
        PluginError: unknown, ambiguous (lists the qualified names), disabled, broken, or of another kind.
    """
    return load_entry(find(kind, name))


def find(kind: str, name: str, dist: str | None = None) -> Entry:
    """The catalogue entry for a name; raises the same errors as `get`, except those of importing.

    An in-tree name always refers to the in-tree part, so that no installed plugin can replace it.

    Args:
        dist: the distribution recorded in a saved file, which is preferred if several use the name.
    """
    _check_kind(kind)
    if not isinstance(name, str):
        raise PluginError("unknown", f"{shown(name)} is not the name of a {kind}", fits="a name, or dist:name")
    entries = [e for e in catalogue() if e.kind == kind]
    matches = _matches(entries, unicodedata.normalize("NFC", name))
    if not matches and (renamed := renamed_part(kind, name)) is not None:
        return find(kind, renamed, dist)
    if not matches:
        fits = suggest(name, {e.name for e in entries})
        if (file := unused_file()) is not None:
            fits += f"; {file} lies here and is not in use; to use it: ldmkit --parts {file.name}"
        raise PluginError("unknown", f"no {kind} named {name!r}", fits=fits)
    usable = [e for e in matches if verdict(e).status not in _BARRED]
    if not usable:
        raise _barred_error(matches[0], verdict(matches[0]))
    decided = [e for e in usable if dist is not None and normal(e.dist) == normal(dist)]
    decided = decided or [e for e in usable if e.dist == HOME] or usable
    if len(decided) > 1:
        qualified = " or ".join(repr(e.qualified) for e in decided)
        dists = " and ".join(f"{e.dist} {e.version}" for e in decided)
        raise PluginError("ambiguous", f"{kind} {name!r} is provided by {dists}", fits=f"use {qualified}")
    return decided[0]


def _matches(entries: Sequence[Entry], name: str) -> list[Entry]:
    dist, colon, own = name.rpartition(":")
    return [e for e in entries if e.name == (own if colon else name) and (not colon or normal(e.dist) == normal(dist))]


def by_name(kind: str) -> dict[str, Entry]:
    """Name -> entry, for commands or models; if several share a name, they are listed only as `dist:name`.

    An in-tree name always refers to the in-tree entry.
    """
    usable = [e for e in catalogue() if e.kind == kind and verdict(e).status not in _BARRED]
    own = {e.name for e in usable if e.dist == HOME}
    counts = Counter(e.name for e in usable)
    plain = {e.name: e for e in usable if e.dist == HOME or (counts[e.name] == 1 and e.name not in own)}
    return plain | {e.qualified: e for e in usable if plain.get(e.name) != e}


def load_entry(entry: Entry) -> Any:
    """Import an entry and check it against its contract; failures are recorded for `verdict`."""
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
    return PluginError("incompatible", what, fits=judged.remedy or f"another version of {entry.dist}")


@cache
def _load(entry: Entry) -> Any:
    return admit(entry)


forgetters.append(_load.cache_clear)


def name_of(kind: str, cls: type) -> Entry:
    """The catalogue entry of a part's class, for specs and recipes.

    Raises:
        PluginError: the class is not registered.
    """
    for entry in catalogue():
        if entry.kind == kind and _is_of(entry, cls):
            return entry
    what = f"{cls.__module__}:{cls.__qualname__} is not registered as a {kind}"
    raise PluginError("unregistered", what, fits="an entry point in its pyproject.toml, or ldmkit.use_parts(FILE)")


def entry_of(cls: type) -> Entry | None:
    """The catalogue entry of a class, whatever its kind; None if it is not registered."""
    parts = (entry for entry in catalogue() if entry.kind in GROUPS)
    return next((entry for entry in parts if _is_of(entry, cls)), None)


def registered_name(entry: Entry) -> str:
    """The shortest name with which `find` returns this entry: its name if unique, else `dist:name`."""
    try:
        return entry.name if find(entry.kind, entry.name) == entry else entry.qualified
    except PluginError:
        return entry.qualified


def _is_of(entry: Entry, cls: type) -> bool:
    """Whether an entry names a class. A parts file may have been changed and executed again, under the same names."""
    same_path = entry.value == f"{cls.__module__}:{cls.__qualname__}"
    return (same_path and not is_parts_file(entry.dist)) or _loaded_is(entry, cls)


def _loaded_is(entry: Entry, cls: type) -> bool:
    module, _, attribute = entry.value.partition(":")
    loaded: Any = sys.modules.get(module)
    for part in attribute.split("."):
        loaded = getattr(loaded, part, None)
    return loaded is cls


def refresh() -> None:
    """Clear the cached catalogue and recorded failures, after distributions were installed or removed."""
    _installed.cache_clear()
    _named.cache_clear()
    _load.cache_clear()
    _failures.clear()
    for forget in _forgetters:
        forget()


def on_refresh(forget: Callable[[], None]) -> None:
    """Register a function that `refresh` calls, such as the `cache_clear` of a cache that depends on plugins."""
    _forgetters.append(forget)


def _check_kind(kind: str) -> None:
    if not isinstance(kind, str) or kind not in GROUPS:
        raise PluginError("unknown-kind", f"unknown kind {shown(kind)}", fits=suggest(kind, GROUPS))
