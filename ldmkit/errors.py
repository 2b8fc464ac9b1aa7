"""All exceptions that ldmkit raises deliberately: one class hierarchy with stable codes.

An error states what was wrong, where, and what would fit. The code (`input.box-inverted`) is part of the public
interface, so programs may match on it; `docs/errors.md` lists all codes.
"""

from __future__ import annotations

import difflib
import re
import sys
import warnings
from collections.abc import Iterable

from ldmkit.printable import printable


class LdmkitError(Exception):
    """Base of all ldmkit errors.

    Args:
        code: stable identifier, `family.what-happened`.
        what: what was wrong, one sentence without the full stop.
        where: path of the offending item (`layout[3].box`, a file, a key), if there is one.
        fits: what would have been accepted, if known.
    """

    family = "error"

    def __init__(self, code: str, what: str, *, where: str | None = None, fits: str | None = None):
        self.code = f"{self.family}.{code}"
        self.what = what
        self.where = where
        self.fits = fits
        super().__init__(what)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.code, self.what, self.where, self.fits))

    def __str__(self) -> str:
        place = f"{_one_line(self.where)}: " if self.where else ""
        hint = f" ({_one_line(self.fits)})" if self.fits else ""
        # a lone surrogate from a user's text cannot be printed, and breaks pydantic if raised in a validator
        return f"[{self.code}] {place}{_one_line(self.what)}{hint}"


class InputError(LdmkitError, ValueError):
    """An argument of the caller (prompt, box, picture, steps, seed ...) cannot be used.

    It is also a ValueError, so that pydantic adds the path of the offending item if a validator raises it.
    """

    family = "input"


class SpecError(LdmkitError):
    """A pipeline spec or a part's config is not valid."""

    family = "spec"


class CompositionError(LdmkitError):
    """Parts that are valid individually are incompatible."""

    family = "compose"


class SourceError(LdmkitError):
    """A model could not be found, recognised or read safely."""

    family = "source"


class WeightsError(LdmkitError):
    """Tensors in a file do not match the module they are loaded into."""

    family = "weights"


class PluginError(LdmkitError):
    """A plugin is missing, broken, ambiguous or not allowed."""

    family = "plugin"


class RunError(LdmkitError):
    """Something went wrong while a pipeline was running (NaN, memory ...)."""

    family = "run"


def _rebuild(cls: type[LdmkitError], code: str, what: str, where: str | None, fits: str | None) -> LdmkitError:
    return cls(code.removeprefix(cls.family + "."), what, where=where, fits=fits)


LONGEST = 1200
"""Maximum length of each part of a message; longer text comes from user data and is cut in the middle."""


def _one_line(text: str) -> str:
    """Text as a single line of bounded length, with control characters escaped."""
    line = printable(re.sub(r"\s*[\r\n]\s*", " ", str(text)))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 203]}...{line[-200:]}"


def shown(value: object, limit: int = 60) -> str:
    """`repr` of a value for an error message, cut to `limit` characters; never raises."""
    try:
        text = repr(value)
    except Exception:  # nested too deeply, or a faulty __repr__, which must not hide the original error
        text = f"a {type(value).__name__}"
    text = printable(text)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def raised(problem: BaseException, limit: int = 200) -> str:
    """Type and message of a foreign exception for an error message, cut to `limit` characters; never raises."""
    try:
        text = str(problem)
    except Exception:  # a faulty __str__
        text = ""
    text = f"{type(problem).__name__}: {text}" if text else type(problem).__name__
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def suggest(word: object, known: Iterable[str]) -> str:
    """`did you mean 'steps'?` for a misspelt or abbreviated name; otherwise the list of known names.

    Only names within typing-error distance are suggested. A name with other words or digits, or a short one that
    differs in more than one letter, is a different name and may be valid elsewhere.
    """
    names = sorted(known)
    # comparing a very long string would take minutes
    if isinstance(word, str) and 0 < len(word) < 1000:
        plain = _plain(word)
        equal = [name for name in names if _plain(name) == plain]
        prefixed = [name for name in names if len(plain) >= 3 and _plain(name).startswith(plain)]
        close = difflib.get_close_matches(word, names, n=5, cutoff=0.6)
        misspelt = [name for name in close if _misspelt(word, name)] if len(prefixed) < 2 else []
        for found in (equal, misspelt, prefixed if len(prefixed) == 1 else []):
            if found:
                return f"did you mean {found[0]!r}?"
    return "known: " + ", ".join(names) if names else "there are none"


def _plain(name: str) -> str:
    return re.sub(r"[\s._:/-]", "", name).lower()


def _words(name: str) -> list[str]:
    """`StableDiffusion3Pipeline` -> stable, diffusion, 3, pipeline."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\s\d._:/a-zA-Z-]+", name)]


def _misspelt(word: str, name: str) -> bool:
    ones, others = _words(word), _words(name)
    if len(ones) != len(others):  # a typing error may also split or join words
        ones, others = [_plain(word)], [_plain(name)]
        if re.findall(r"\d+", ones[0]) != re.findall(r"\d+", others[0]):
            return False
        return _edits(ones[0], others[0]) <= 1 and len(others[0]) > 5
    return all(
        one == other or _edits(one, other) <= _allowed(one, other) for one, other in zip(ones, others, strict=True)
    )


def _allowed(one: str, other: str) -> int:
    """Edits up to which two words count as the same; short words and acronyms must also begin alike."""
    if one.isdigit() or other.isdigit() or len(other) < 3:
        return 0
    if len(other) < 6:
        kept = 2 if len(other) == 3 else 1
        return int(one[:kept] == other[:kept] or sorted(one) == sorted(other))
    return 2


def _edits(one: str, other: str) -> int:
    """Edit distance with insertions, deletions, substitutions and adjacent swaps (optimal string alignment)."""
    before, last = list[int](), list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, theirs in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != theirs))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == theirs:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


class DrawingWarning(UserWarning):
    """A call runs as requested, but its result may not be what was intended."""


def warn(what: str) -> None:
    """Issue a `DrawingWarning` that points at the innermost stack frame outside of ldmkit."""
    warnings.warn(what, DrawingWarning, stacklevel=caller_level() + 1)


def caller_level() -> int:
    """The `stacklevel` that makes a warning point at the innermost stack frame outside of ldmkit."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "ldmkit":
        frame, level = frame.f_back, level + 1
    return level
