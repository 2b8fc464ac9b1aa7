"""Deprecation of public names: they warn for some versions before they are removed. Does not import torch.

Every deprecation is a `Notice` with the version that deprecates, the version that removes, and a replacement; the
deprecated code calls its `warn`. Renamed parts are listed in `RENAMED_PARTS`. The rules for the two versions are in
docs/stability.md; a test fails if something is kept past its removal version.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from types import FrameType
from typing import Any

NOTICE_PERIOD = 2
"""Minor versions with a warning before the removal."""

_OWN = frozenset({"ldmkit", "pydantic", "pydantic_core", "torch", "typer", "click", "functools", "contextlib"})
"""Packages whose frames are skipped, so that a warning points at the caller's line."""


class LdmkitDeprecationWarning(FutureWarning):
    """Use of something that a later version of ldmkit removes. Shown by default, once per line that uses it."""


@dataclass(frozen=True)
class Notice:
    """One deprecation.

    Args:
        what: what is deprecated, as users write it: `ldmkit.load(raw=...)`, `--raw`, `sampler 'dpm'`.
        since: first version that warns, `major.minor`.
        removal: first version without it, `major.minor`.
        use: the replacement.
        reason: why there is no replacement; exactly one of `use` and `reason` is required.

    Raises:
        TypeError: neither or both of `use` and `reason`; invalid versions, or too few between them.
    """

    what: str
    since: str
    removal: str
    use: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.what.strip():
            raise TypeError("a deprecation must name what is deprecated")
        if bool(self.use.strip()) == bool(self.reason.strip()):
            raise TypeError(f"{self.what}: give either a replacement (use) or a reason why there is none, not both")
        (since_major, since_minor), (major, minor) = version_of(self.since), version_of(self.removal)
        if (major == since_major and minor < since_minor + NOTICE_PERIOD) or major < since_major:
            what = f"{self.what}: removal in {self.removal} is too soon after {self.since}"
            raise TypeError(f"{what}: allow {NOTICE_PERIOD} minor versions, or remove it in the next major one")

    @property
    def message(self) -> str:
        """One sentence for the user."""
        instead = f"use {self.use}" if self.use else self.reason
        return f"{self.what} is deprecated since ldmkit {self.since} and will be removed in {self.removal}: {instead}"

    def warn(self) -> None:
        """Issue the warning at the caller's line; Python's default filters show it once per line."""
        frame = _caller()
        place: dict[str, Any] = {"filename": "ldmkit", "lineno": 0}
        if frame is not None:
            module, registry = frame.f_globals.get("__name__"), frame.f_globals.setdefault("__warningregistry__", {})
            place = {"filename": frame.f_code.co_filename, "lineno": frame.f_lineno}
            place |= {"module": module, "registry": registry}
        warnings.warn_explicit(self.message, LdmkitDeprecationWarning, **place)


def version_of(text: str) -> tuple[int, int]:
    """(major, minor) of a version such as `1.4` or `1.4.2`.

    Raises:
        TypeError: it does not begin with two numbers.
    """
    numbers = text.split(".")[:2]
    if len(numbers) < 2 or not all(number.isascii() and number.isdecimal() for number in numbers):
        raise TypeError(f"{text!r} is not a version of the form major.minor")
    return int(numbers[0]), int(numbers[1])


RENAMED_PARTS: dict[tuple[str, str], tuple[str, Notice]] = {}
"""(kind, old name) -> (new name, notice) of in-tree parts; old names listed here still work."""


def renamed_part(kind: str, name: str) -> str | None:
    """The current name of a renamed part, after a deprecation warning; None if it was not renamed."""
    if (kind, name) not in RENAMED_PARTS:
        return None
    new, notice = RENAMED_PARTS[kind, name]
    notice.warn()
    return new


def _caller() -> FrameType | None:
    """The innermost frame outside of `_OWN`; None if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] in _OWN:
        frame = frame.f_back
    return frame
