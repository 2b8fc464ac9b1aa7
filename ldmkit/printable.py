"""Text of other people on a terminal: what would steer it, or cannot be seen, is written as an escape."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_STEERING = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})
"""Controls (ANSI sequences begin with one), marks of direction, line and paragraph ends, lone surrogates."""


class _Escapes(dict[int, str]):
    def __init__(self, keep: str, write: Callable[[str], str]) -> None:
        super().__init__()
        self.keep, self.write = keep, write

    def __missing__(self, code: int) -> str:
        character = chr(code)
        steers = character not in self.keep and unicodedata.category(character) in _STEERING
        return self.setdefault(code, self.write(character) if steers else character)


def _as_json(character: str) -> str:
    if character.isascii() and character != "\x7f":
        return character  # json has escaped those within a text, the others are its own layout
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


_LINE = _Escapes("", lambda character: ascii(character)[1:-1])
_TEXT = _Escapes("\n\t\r", lambda character: ascii(character)[1:-1])
_JSON = _Escapes("", _as_json)


def printable(text: str) -> str:
    """A name or message within a line: escapes for all that steers, ends of lines too."""
    return text if text.isprintable() else text.translate(_LINE)


def printable_text(text: str) -> str:
    """The same for whole lines, whose ends and tabs stay."""
    return text if text.isprintable() else text.translate(_TEXT)


def printable_json(text: str) -> str:
    """JSON that says the same, with an escape of JSON's own for each character that would steer a terminal."""
    return text if text.isprintable() else text.translate(_JSON)


def first_few(names: Iterable[object], most: int = 4, show: Callable[[object], str] = repr) -> str:
    """The first of many names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(map(show, listed[:most])) + more


_UP = "\x1b[A"


class Escaping:
    """A text stream whose texts are escaped; everything else is asked of the stream itself, which is `plain`."""

    def __init__(self, plain: TextIO) -> None:
        self.plain = plain

    def write(self, text: str) -> int:
        """Write it; returns the length of what was given."""
        own = text and not text.replace(_UP, "").strip("\n")  # tqdm moves to the row of a bar in a write of its own
        self.plain.write(text if own else printable_text(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.plain)

    def __enter__(self) -> Escaping:
        return self

    def __exit__(self, *_: object) -> None:
        self.plain.flush()


@contextmanager
def escaped_output() -> Iterator[None]:
    """Inside of the block nothing that is printed, by whomever, steers the terminal."""
    before = sys.stdout, sys.stderr
    own = [stream if stream is None or isinstance(stream, Escaping) else Escaping(stream) for stream in before]
    sys.stdout, sys.stderr = own
    try:
        yield
    finally:
        if [sys.stdout, sys.stderr] == own:
            sys.stdout, sys.stderr = before


def print_rich(*renderables: Any) -> None:
    """Print tables and markup of rich's; texts of other people in them are escaped by the caller (`cell`)."""
    from rich.console import Console

    Console(file=sys.stdout.plain if isinstance(sys.stdout, Escaping) else sys.stdout).print(*renderables)


def cell(text: str) -> str:
    """Text of other people for `print_rich`, in which nothing is markup."""
    from rich.markup import escape

    return escape(printable(text))
