"""Every error that ldmkit raises on purpose: one tree, stable codes.

An error says what was wrong, where, and what would fit. The code (`input.box-inverted`) is part of the
public interface: programs may match on it, and `docs/errors.md` lists them all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from ldmkit.printable import printable


class LdmkitError(Exception):
    """Base of all ldmkit errors.

    Args:
        code: stable identifier, `family.what-happened`.
        what: what was wrong, one sentence without the final stop.
        where: path of the offending thing (`layout[3].box`, a file, a key), if there is one.
        fits: what would have been accepted, if that can be said.
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
        # a lone surrogate from a user's text cannot be printed, and breaks pydantic when raised in a validator
        return f"[{self.code}] {place}{_one_line(self.what)}{hint}"


class InputError(LdmkitError, ValueError):
    """A value given by the caller (prompt, box, picture, steps, seed ...) cannot be used.

    Also a ValueError, so that one raised inside a pydantic validator gets the path of the offending item.
    """

    family = "input"


class SpecError(LdmkitError):
    """A pipeline spec or a part's config is not valid."""

    family = "spec"


class CompositionError(LdmkitError):
    """Parts that are valid by themselves do not fit together."""

    family = "compose"


class SourceError(LdmkitError):
    """A model could not be found, recognised or read safely."""

    family = "source"


class WeightsError(LdmkitError):
    """Tensors in a file do not match the module that wants them."""

    family = "weights"


class PluginError(LdmkitError):
    """A plugin is absent, broken, ambiguous or not allowed."""

    family = "plugin"


class RunError(LdmkitError):
    """Something went wrong while a pipeline was running (NaN, memory ...)."""

    family = "run"


def _rebuild(cls: type[LdmkitError], code: str, what: str, where: str | None, fits: str | None) -> LdmkitError:
    return cls(code.removeprefix(cls.family + "."), what, where=where, fits=fits)


LONGEST = 1200
"""Characters of each part of a message: what is longer was put in by somebody, and its middle says nothing."""


def _one_line(text: str) -> str:
    """What other programs say in several lines as one, of bounded length, and nothing in it steers a terminal."""
    line = printable(re.sub(r"\s*[\r\n]\s*", " ", str(text)))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 203]}...{line[-200:]}"


def shown(value: object, limit: int = 60) -> str:
    """`repr` of a value for an error's text, cut to `limit` characters; whatever the value is, it can be shown."""
    try:
        text = repr(value)
    except Exception:  # nested too deeply, or a faulty __repr__: neither is what the error is about
        text = f"a {type(value).__name__}"
    text = printable(text)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def raised(problem: BaseException, limit: int = 200) -> str:
    """Type and message of somebody else's exception for an error's text; whatever it is, it can be shown."""
    try:
        text = str(problem)
    except Exception:  # a faulty __str__
        text = ""
    text = f"{type(problem).__name__}: {text}" if text else type(problem).__name__
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def suggest(word: object, known: Iterable[str]) -> str:
    """`did you mean 'steps'?` or the list of known words, for an unknown one."""
    names = sorted(known)
    # far longer than any name: comparing would take minutes, and find nothing
    comparable = isinstance(word, str) and len(word) < 1000
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.6) if comparable else []
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(names) if names else "nothing is known here"
