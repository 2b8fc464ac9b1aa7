"""A1111's syntax of prompts: `(word)`, `(word:1.2)`, `[word]` and `BREAK`, as fragments of text with weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from ldmkit import InputError, shown

MORE = 1.1
"""The factor of a pair of round brackets; of square ones its inverse."""

LARGEST = 10.0
"""Largest weight, of either sign: several times what still gives pictures."""

DEEPEST = 50
"""Brackets inside of brackets: of round ones alone, 25 are beyond the largest weight."""

_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_TOKEN = re.compile(r"\\[()\[\]\\]|\\|[(\[\])]|[^\\()\[\]]+")
_WEIGHT = re.compile(r":([^:]*)\Z")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
_LIKE_NUMBER = re.compile(r"[+-]?(nan|inf|infinity|[\d.,]*\d[\d.,]*(e[+-]?\d*)?)", re.IGNORECASE)
_CLOSES = {")": "(", "]": "["}


class Fragment(NamedTuple):
    """A piece of a prompt and its weight; `text` is None for a `BREAK`, after which a new chunk begins."""

    text: str | None
    weight: float = 1.0


class _Open(NamedTuple):
    """An open bracket: where it stands in the text, and in the list of pieces."""

    kind: str
    at: int
    index: int


class _Close:
    """Ends the factor of the innermost bracket in a list of pieces."""


_Piece: TypeAlias = str | float | _Close


def read_emphasis(text: str) -> list[Fragment]:
    """The fragments of a prompt, with neighbours of equal weight joined.

    `(word)` has a weight of 1.1, `(word:1.2)` of 1.2 and `[word]` of 1 / 1.1; nested brackets multiply. A bracket after
    a backslash is literal.

    Raises:
        InputError: `prompt-brackets`: unbalanced brackets; `prompt-weight`: not a weight, or too large;
            `prompt-schedule`: syntax by which A1111 changes words during the run.
    """
    pieces: list[_Piece] = []
    opened: list[_Open] = []
    for match in _TOKEN.finditer(text):
        token, at = match[0], match.start()
        if token in ("(", "["):
            if len(opened) == DEEPEST:
                what = f"brackets are nested more than {DEEPEST} deep at character {at}"
                raise InputError("prompt-brackets", what, fits="a weight, as in (word:1.2)")
            opened.append(_Open(token, at, len(pieces)))
            pieces.append(1.0)
        elif token in _CLOSES:
            if not opened or opened[-1].kind != _CLOSES[token]:
                raise _unbalanced(token, at, text)
            begun = opened.pop()
            read = _less if begun.kind == "[" else _more
            pieces[begun.index] = read(pieces, begun.index, text[begun.at : at + 1])
            pieces.append(_Close())
        elif token != "\\":
            pieces.append(token[1:] if token[0] == "\\" else token)
    if opened:
        raise _unbalanced(opened[-1].kind, opened[-1].at, text)
    return _joined(_weighted(pieces))


def _less(pieces: list[_Piece], index: int, bracket: str) -> float:
    """The factor of square brackets."""
    stated = _WEIGHT.search(bracket[1:-1])
    if "|" in bracket or (stated is not None and _NUMBER.fullmatch(stated[1].strip())):
        what = f"{shown(bracket)} changes words during the run in A1111, which is not supported"
        raise InputError("prompt-schedule", what, fits=r"the same text for the whole run; \[ for a literal bracket")
    return 1 / MORE


def _more(pieces: list[_Piece], index: int, bracket: str) -> float:
    """The factor of round brackets; a weight is taken off the text before it ends."""
    end = pieces[-1] if len(pieces) > index + 1 else ""
    stated = _WEIGHT.search(end) if isinstance(end, str) else None
    number = "none" if stated is None else stated[1].strip()
    if stated is None or not isinstance(end, str) or not (number == "" or _LIKE_NUMBER.fullmatch(number)):
        return MORE
    if not _NUMBER.fullmatch(number):
        what = f"{shown(number)} in {shown(bracket)} is not a weight"
        raise InputError("prompt-weight", what, fits=r"a number, as in (word:1.2); \( for a literal bracket")
    pieces[-1] = end[: stated.start()]
    return _checked(float(number))


def _weighted(pieces: list[_Piece]) -> Iterator[Fragment]:
    weights = [1.0]
    for piece in pieces:
        if isinstance(piece, float):
            weights.append(weights[-1] * piece)
        elif isinstance(piece, _Close):
            weights.pop()
        else:
            for number, part in enumerate(_BREAK.split(piece)):
                if number:
                    yield Fragment(None)
                if part:
                    yield Fragment(part, _checked(weights[-1]))


def _joined(fragments: Iterator[Fragment]) -> list[Fragment]:
    runs: list[tuple[list[str] | None, float]] = []
    for text, weight in fragments:
        if text is None:
            runs.append((None, 1.0))
        elif runs and runs[-1][0] is not None and runs[-1][1] == weight:
            runs[-1][0].append(text)
        else:
            runs.append(([text], weight))
    return [Fragment(None if texts is None else "".join(texts), weight) for texts, weight in runs]


def _checked(weight: float) -> float:
    if not abs(weight) <= LARGEST:
        what, fits = f"a weight of {weight:.4g}", f"-{LARGEST:g} to {LARGEST:g}"
        raise InputError("prompt-weight", what, fits=fits)
    return weight


def _unbalanced(bracket: str, at: int, text: str) -> InputError:
    said = "was not closed" if bracket in "([" else "closes nothing"
    what = f"the {bracket!r} at character {at} {said}: {shown(text[at : at + 40])}"
    return InputError("prompt-brackets", what, fits=rf"brackets in pairs; \{bracket} for a literal one")
