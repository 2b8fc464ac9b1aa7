"""The entry points that distributions declare, read from their metadata. Imports neither torch nor plugins.

For distributions unrelated to ldmkit only `entry_points.txt` is read, and for the others a few header lines, so that
listing stays fast with hundreds of distributions installed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from ldmkit.errors import suggest
from ldmkit.plugins.kinds import COMMANDS_GROUP, GROUPS, HOOKS_GROUP, MODELS_GROUP
from ldmkit.printable import printable

HOME = "ldmkit"
"""The distribution whose parts are in-tree."""

MANY_ENTRIES, MAX_ENTRIES = 200, 1000
"""Entries per distribution: above the first number they are reported, above the second the distribution is ignored."""
MAX_BYTES = 1_000_000
"""Maximum size of one `entry_points.txt`."""

Flaw = Literal["unreadable", "not-utf8", "oversized", "crowded", "two-versions", "unknown-group", "bad-name", "twice"]


@dataclass(frozen=True)
class Entry:
    """One entry of the catalogue. `kind` is a kind of part, or `hooks`, `command` or `model`."""

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
class Problem:
    """A problem in the metadata of a distribution.

    Args:
        name: the entry that it concerns; "" for the distribution as a whole.
    """

    flaw: Flaw
    dist: str
    version: str
    cause: str
    remedy: str
    name: str = ""

    @property
    def left_out(self) -> bool:
        """Whether entries are missing from the catalogue because of it; they are listed as failures instead."""
        return self.flaw in ("unreadable", "oversized", "bad-name")


@dataclass(frozen=True)
class Installed:
    """All installed entries, in-tree first, then by distribution and name, and the problems found."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]


@dataclass
class _Copy:
    """One metadata folder; a distribution may have several on the path."""

    dist: metadata.Distribution
    points: str
    folder: str
    damage: Exception | None = None
    encoding: str = ""
    header: dict[str, list[str]] = field(default_factory=dict)

    @property
    def version(self) -> str:
        return (self.header.get("version") or ["?"])[0]


def scan() -> Installed:
    """Read the metadata of every distribution on `sys.path`."""
    copies: dict[str, list[_Copy]] = {}
    for dist in metadata.distributions():
        copy, found = _copy(dist), copies.setdefault(normal(_name_of(dist)), [])
        if not copy.folder or all(copy.folder != other.folder for other in found):  # a folder may be on the path twice
            found.append(copy)
    entries: dict[tuple[str, str, str], Entry] = {}
    problems: list[Problem] = []
    for key, found in copies.items():
        if key and any(HOME in copy.points or copy.damage for copy in found):
            _read(found, entries, problems)
    ordered = sorted(entries.values(), key=lambda e: (e.kind, e.dist != HOME, e.dist, e.name))
    return Installed(tuple(ordered), tuple(sorted(problems, key=lambda p: (p.dist, p.flaw, p.name))))


def normal(name: str) -> str:
    """A distribution's name as packaging compares them: `Other_Parts` is `other-parts`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _copy(dist: metadata.Distribution) -> _Copy:
    folder = str(getattr(dist, "_path", ""))
    try:
        return _Copy(dist, dist.read_text("entry_points.txt") or "", folder)
    except UnicodeDecodeError as error:
        # distributions unrelated to ldmkit are ignored
        why = f"entry_points.txt is not UTF-8 ({error.reason} at byte {error.start})"
        damage = ValueError(f"{why}, which breaks the import of torch and pydantic")
        return _Copy(dist, "", folder, damage if HOME.encode() in error.object else None)
    except Exception as error:  # a damaged metadata file must not hide the other distributions
        return _Copy(dist, "", folder, error)


def _name_of(dist: metadata.Distribution) -> str:
    """The name from the folder's name, which is cheap; otherwise the one in the metadata."""
    path = getattr(dist, "_path", None)
    stem, _, ending = getattr(path, "name", "").rpartition(".")
    if ending in ("dist-info", "egg-info") and stem:
        return str(stem.split("-")[0])
    try:
        return dist.name or ""
    except Exception:  # unreadable metadata, and no folder name
        return ""


def _read(copies: list[_Copy], entries: dict[tuple[str, str, str], Entry], problems: list[Problem]) -> None:
    """Add the entries and problems of a distribution, from the copy of it that Python uses."""
    for copy in copies:
        copy.header, copy.encoding = _header(copy.dist)
    used = _used(copies)
    name = (used.header.get("name") or [_name_of(used.dist)])[0]
    about = (name, used.version)
    if any(other.version != used.version or other.points != used.points for other in copies):
        problems.append(_several(name, used, copies))
    if used.encoding:
        problems.append(Problem("not-utf8", *about, used.encoding, f"{name} saved as UTF-8; {_reinstall(name)}"))
    if used.damage is not None:
        cause = f"its metadata cannot be read: {used.damage}"
        problems.append(Problem("unreadable", *about, cause, _reinstall(name), "entry_points.txt"))
        return
    try:
        points = [point for point in used.dist.entry_points if point.group.split(".")[0].strip() == HOME]
    except Exception as error:
        cause = f"its metadata cannot be read: {error}"
        problems.append(Problem("unreadable", *about, cause, _reinstall(name), "entry_points.txt"))
        return
    if len(points) > MAX_ENTRIES or (points and len(used.points) > MAX_BYTES):
        cause = f"it lists {len(points)} parts in {len(used.points)} bytes; at most {MAX_ENTRIES} parts are read"
        remedy = f"fewer entry points in {name}; until then pip uninstall {name}"
        problems.append(Problem("oversized", *about, cause, remedy, "entry_points.txt"))
        return
    if len(points) > MANY_ENTRIES and name != HOME:
        cause = f"it lists {len(points)} parts, which clutters every listing"
        remedy = f"one part with options instead of many in {name}; LDMKIT_PLUGINS_DENY={name} disables it"
        problems.append(Problem("crowded", *about, cause, remedy))
    requires = () if name == HOME else tuple(r for r in used.header.get("requires-dist", ()) if is_home(r))
    for point in points:
        _add(point, about, requires, entries, problems)


def _add(
    point: metadata.EntryPoint,
    about: tuple[str, str],
    requires: tuple[str, ...],
    entries: dict[tuple[str, str, str], Entry],
    problems: list[Problem],
) -> None:
    kind, name = KIND_OF.get(point.group), unicodedata.normalize("NFC", point.name)
    if kind is None:
        cause = f"{printable(name)} stands in group '{printable(point.group)}', which ldmkit does not have"
        problems.append(Problem("unknown-group", *about, cause, suggest(point.group, KIND_OF), printable(name)))
    elif (why := unfit(name)) is not None:
        remedy = "a name of visible letters and digits of one alphabet, -, _, . or +"
        problems.append(Problem("bad-name", *about, why, remedy, f"{kind}:{printable(name)}"))
    elif (kind, *about[:1], name) in entries:
        cause = f"duplicate entry point {kind} {name!r}; the first is used"
        problems.append(Problem("twice", *about, cause, "remove one of the two entry points", f"{kind}:{name}"))
    else:
        value = re.sub(r"\s*\[[^\]]*\]\s*$", "", point.value)  # without extras, which older tools appended
        entries[(kind, about[0], name)] = Entry(kind, name, value, *about, requires)


KIND_OF = {group: kind for kind, group in GROUPS.items()} | {
    HOOKS_GROUP: "hooks",
    COMMANDS_GROUP: "command",
    MODELS_GROUP: "model",
}
"""Entry-point group -> kind of entry."""


def _header(dist: metadata.Distribution) -> tuple[dict[str, list[str]], str]:
    """The header lines of METADATA, and a description of any encoding problem ("" if none). Does not use the email
    parser, which would take longer than everything else here."""
    found: dict[str, list[str]] = {}
    encoding = ""
    try:
        text = dist.read_text("METADATA") or dist.read_text("PKG-INFO") or ""
    except UnicodeDecodeError as error:  # requirements and version are ASCII anyway
        text = error.object.decode("utf-8", "replace")
        encoding = f"its METADATA is not UTF-8 ({error.reason} at byte {error.start}), so pip and others cannot read it"
    except Exception:  # only the folder's name is available then
        return found, encoding
    for line in text.splitlines():
        if not line:
            break
        key, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            found.setdefault(key.lower(), []).append(value.strip())
    return found, encoding


def _used(copies: list[_Copy]) -> _Copy:
    """The copy that Python uses: the first on the path; the newest if that folder has several."""
    folder = Path(copies[0].folder).parent
    beside = [copy for copy in copies if Path(copy.folder).parent == folder]
    if len(beside) == 1:
        return beside[0]
    from packaging.version import InvalidVersion, Version

    def rank(copy: _Copy) -> Any:
        try:
            return Version(copy.version)
        except InvalidVersion:
            return Version("0")

    return max(beside, key=lambda copy: (rank(copy), copy.folder))


def _several(name: str, used: _Copy, copies: Iterable[_Copy]) -> Problem:
    others = ", ".join(f"{copy.version} in {Path(copy.folder).parent}" for copy in copies if copy is not used)
    cause = f"several copies are installed: {used.version} in {Path(used.folder).parent} is used; also found: {others}"
    remedy = f"pip uninstall {name} until none is left, then pip install {name}"
    return Problem("two-versions", name, used.version, cause, remedy)


def _reinstall(name: str) -> str:
    return f"pip install --force-reinstall {name}"


def is_home(requirement: str) -> bool:
    """Whether a requirement is one of ldmkit itself."""
    return normal(re.split(r"[^A-Za-z0-9_.-]", requirement.strip(), maxsplit=1)[0]) == HOME


def unfit(name: str) -> str | None:
    """Why an entry's name cannot be used: it must be what it looks like."""
    if re.fullmatch(r"[A-Za-z0-9_.+-]+", name):
        return None
    hidden = [char for char in name if not char.isprintable() or char.isspace() or unicodedata.category(char) == "Cf"]
    if hidden or not name:
        marks = ", ".join(f"U+{ord(char):04X}" for char in hidden) or "nothing"
        return f"the name '{printable(name)}' has blanks or invisible characters: {marks}"
    special = sorted({char for char in name if char.isascii() and not re.match(r"[A-Za-z0-9_.+-]", char)})
    if special:
        return f"the name {name!r} has characters with a special meaning: {' '.join(special)}"
    if unicodedata.normalize("NFKC", name) != name:
        return f"the name '{printable(name)}' has characters that look like others (it is not in NFKC form)"
    alphabets = {unicodedata.name(char, "?").split()[0] for char in name if char.isalpha()} & _ALIKE
    if len(alphabets) > 1:
        spelt = name.encode("ascii", "backslashreplace").decode()
        return f"the name {name!r} ({spelt}) mixes similar-looking alphabets: {', '.join(sorted(alphabets))}"
    return None


_ALIKE = {"LATIN", "CYRILLIC", "GREEK"}
