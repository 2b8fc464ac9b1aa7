"""Taking something out of the public surface in two steps: it warns for a while, then it goes. Free of torch.

Every deprecation is a `Notice`, which says since when, until when, and what to use instead; what goes calls its `warn`.
A part that is renamed stands in `RENAMED_PARTS`. The rules for the two versions are in docs/stability.md; a test fails
when something is kept past its own date.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from types import FrameType
from typing import Any

NOTICE_PERIOD = 2
"""Minor versions that warn before something goes."""

_OWN = frozenset({"ldmkit", "pydantic", "pydantic_core", "torch", "typer", "click", "functools", "contextlib"})
"""Packages whose frames are not the caller's: a warning points at the line outside of them."""


class LdmkitDeprecationWarning(FutureWarning):
    """Something of ldmkit that goes in a later version is in use. Shown by default, once for each line that uses it."""


@dataclass(frozen=True)
class Notice:
    """One deprecation.

    Args:
        what: goes, as its user writes it: `ldmkit.load(raw=...)`, `--raw`, `sampler 'dpm'`.
        since: first version that warns, `major.minor`.
        removal: first version without it, `major.minor`.
        use: what to write instead.
        reason: why there is nothing to write instead; either `use` or `reason` is needed.

    Raises:
        TypeError: neither `use` nor `reason`, or both; versions that are none, or too close to each other.
    """

    what: str
    since: str
    removal: str
    use: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.what.strip():
            raise TypeError("a deprecation names what goes")
        if bool(self.use.strip()) == bool(self.reason.strip()):
            raise TypeError(f"{self.what}: either a replacement (use) or a reason why there is none, and not both")
        (since_major, since_minor), (major, minor) = version_of(self.since), version_of(self.removal)
        if (major == since_major and minor < since_minor + NOTICE_PERIOD) or major < since_major:
            what = f"{self.what}: removed in {self.removal}, which is too soon after {self.since}"
            raise TypeError(f"{what}: {NOTICE_PERIOD} minor versions, or the next major one")

    @property
    def message(self) -> str:
        """One sentence for the user."""
        instead = f"use {self.use}" if self.use else self.reason
        return f"{self.what} is deprecated since ldmkit {self.since} and goes in {self.removal}: {instead}"

    def warn(self) -> None:
        """Warn at the line that uses it; Python's filters show each such line once."""
        frame = _caller()
        place: dict[str, Any] = {"filename": "ldmkit", "lineno": 0}
        if frame is not None:
            module, registry = frame.f_globals.get("__name__"), frame.f_globals.setdefault("__warningregistry__", {})
            place = {"filename": frame.f_code.co_filename, "lineno": frame.f_lineno}
            place |= {"module": module, "registry": registry}
        warnings.warn_explicit(self.message, LdmkitDeprecationWarning, **place)


def version_of(text: str) -> tuple[int, int]:
    """(major, minor) of `1.4` or `1.4.2`, whatever follows.

    Raises:
        TypeError: it does not begin with two numbers.
    """
    numbers = text.split(".")[:2]
    if len(numbers) < 2 or not all(number.isascii() and number.isdecimal() for number in numbers):
        raise TypeError(f"{text!r} is no version: major.minor is wanted")
    return int(numbers[0]), int(numbers[1])


RENAMED_PARTS: dict[tuple[str, str], tuple[str, Notice]] = {}
"""(kind, old name) -> (new name, notice) of in-tree parts: the old name is found as long as it stands here."""


def renamed_part(kind: str, name: str) -> str | None:
    """Today's name of a part that had another one, with its warning; None where nothing was renamed."""
    if (kind, name) not in RENAMED_PARTS:
        return None
    new, notice = RENAMED_PARTS[kind, name]
    notice.warn()
    return new


def _caller() -> FrameType | None:
    """The first frame outside of `_OWN`; None where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] in _OWN:
        frame = frame.f_back
    return frame
