"""Groups the members of archives into samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from ldmkit import InputError
from ldmkit_training.data.sources.finding import LIKE, PICTURES, read_endings, set_aside
from ldmkit_training.data.sources.tars import Member, members

TEXT, LABEL, JSON = "txt", "cls", "json"

Group = dict[str, Member]
"""Ending, without its dot -> member."""

Names = Literal["first-dot", "last-dot"]
"""Where the ending of a member's name begins: at the first dot behind its folders (webdataset) or the last."""

Others = Literal["error", "skip"]


class Rule(NamedTuple):
    """How members are read.

    Args:
        names, others: see `ShardsData`.
        picture: the ending of pictures; None: any that can be read.
        known: endings that are read beside pictures.
        ignored: endings that may be there.
    """

    names: Names
    others: Others
    picture: str | None
    known: Collection[str]
    ignored: Collection[str]

    @property
    def pictures(self) -> tuple[str, ...]:
        """Endings of pictures, without dots."""
        return (self.picture,) if self.picture else tuple(ending[1:] for ending in read_endings())

    def split(self, name: str) -> tuple[str, str]:
        """Key and ending, in lower case, of a member's name without its folders."""
        key, _, ending = name.partition(".")
        if self.names == "last-dot":
            lower = name.lower()
            whole = [one for one in (*self.known, *self.ignored) if "." in one and lower.endswith(f".{one}")]
            cut = max(map(len, whole)) if whole else len(name.rpartition(".")[2])
            key, ending = (name[: -cut - 1], name[len(name) - cut :]) if "." in name else (name, "")
        return key, ending.lower()


class Left(NamedTuple):
    """What was not read: hidden members, and others by their endings."""

    hidden: list[str]
    others: Counter[str]

    def notes(self, where: str) -> list[str]:
        """As notes of a source."""
        found = []
        if self.hidden:
            found.append(f"{where}: {len(self.hidden)} hidden member(s) not read, such as {self.hidden[0]!r}")
        if self.others:
            listed = ", ".join(f"{many} {ending}" for ending, many in sorted(self.others.items()))
            found.append(f"{where}: members not read: {listed}")
        return found


def grouped(path: Path, rule: Rule, left: Left) -> dict[str, Group]:
    """Key -> members of an archive; what is not read is counted in `left`.

    Raises:
        InputError: `unknown-member`, `file-twice`; those of `members`.
    """
    groups: dict[str, Group] = {}
    pictures = rule.pictures
    for member in members(path):
        parent, _, name = member.name.rpartition("/")
        if set_aside(member.name):
            left.hidden.append(member.name)
            continue
        key, ending = rule.split(name)
        if ending in rule.ignored:
            left.others[f".{ending}"] += 1
            continue
        if not key or (ending not in rule.known and ending not in pictures):
            if rule.others == "error":
                raise _unknown(member, key, ending, rule)
            left.others[f".{ending}" if ending else "without ending"] += 1
            continue
        group = groups.setdefault(f"{parent}/{key}" if parent else key, {})
        other = ending if ending in group else picture_ending(group, pictures) if ending in pictures else None
        if other is not None:
            what = f"the sample {key!r} has a .{other} member already"
            fits = "one picture, one .txt ... a sample"
            fits += f"; or picture: {other}, which says which one is its picture" if other != ending else ""
            raise InputError("file-twice", what, where=member.place, fits=fits)
        group[ending] = member
    return groups


def picture_ending(group: Mapping[str, Member], pictures: Collection[str]) -> str | None:
    """The ending of a group's picture."""
    return next((ending for ending in pictures if ending in group), None)


def _unknown(member: Member, key: str, ending: str, rule: Rule) -> InputError:
    last = ending.rpartition(".")[2]
    kinds = (*rule.pictures, *rule.known)
    if not ending:
        what, fits = "a member without an ending", "KEY.ENDING"
    elif rule.names == "first-dot" and last != ending and last in kinds:
        what = "its name has a dot before its ending: by webdataset's rule the key ends at the first dot"
        what += f", and is {key!r} with the ending {ending!r}"
        fits = f"names: last-dot, which reads it as a .{last} of its own; or maps: {{{ending.rpartition('.')[0]}: ...}}"
    elif f".{last}" in (*PICTURES, *LIKE):
        what, fits = f"a .{last} picture is not read here", f"pictures of {', '.join(rule.pictures)}"
    else:
        what, fits = "a member of no known ending", f"KEY.ENDING with {', '.join(kinds)}"
    fits += "; others: skip, or `ignored`, where it is not to be read"
    return InputError("unknown-member", what, where=member.place, fits=fits)
