"""Safe output of untrusted text on a terminal: control and invisible characters are written as escapes."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_UNSAFE = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})
"""Control characters (ANSI sequences begin with one), bidi marks, line and paragraph separators, lone surrogates."""


class _Escapes(dict[int, str]):
    def __init__(self, keep: str, write: Callable[[str], str]) -> None:
        super().__init__()
        self.keep, self.write = keep, write

    def __missing__(self, code: int) -> str:
        character = chr(code)
        unsafe = character not in self.keep and unicodedata.category(character) in _UNSAFE
        return self.setdefault(code, self.write(character) if unsafe else character)


def _as_json(character: str) -> str:
    if character.isascii() and character != "\x7f":
        return character  # json has escaped those within strings; the others are its own layout
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


_LINE = _Escapes("", lambda character: ascii(character)[1:-1])
_TEXT = _Escapes("\n\t\r", lambda character: ascii(character)[1:-1])
_JSON = _Escapes("", _as_json)


def printable(text: str) -> str:
    """A name or message within a line, with control characters escaped, including line ends."""
    return text if text.isprintable() else text.translate(_LINE)


def printable_text(text: str) -> str:
    """Like `printable` for whole lines; line ends and tabs are kept."""
    return text if text.isprintable() else text.translate(_TEXT)


def printable_json(text: str) -> str:
    """Equivalent JSON with a JSON escape for each control character."""
    return text if text.isprintable() else text.translate(_JSON)


def first_few(names: Iterable[object], most: int = 4, show: Callable[[object], str] = repr) -> str:
    """The first few names, and the number of remaining ones."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(map(show, listed[:most])) + more


_UP = "\x1b[A"


class Escaping:
    """A text stream that escapes what is written; everything else is delegated to the wrapped stream `plain`."""

    def __init__(self, plain: TextIO) -> None:
        self.plain = plain

    def write(self, text: str) -> int:
        """Write the escaped text; returns the length of `text`."""
        own = text and not text.replace(_UP, "").strip("\n")  # tqdm's cursor movements come in separate writes
        self.plain.write(text if own else printable_text(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each line."""
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
    """Escape control characters in everything printed to stdout and stderr inside the block."""
    before = sys.stdout, sys.stderr
    own = [stream if stream is None or isinstance(stream, Escaping) else Escaping(stream) for stream in before]
    sys.stdout, sys.stderr = own
    try:
        yield
    finally:
        if [sys.stdout, sys.stderr] == own:
            sys.stdout, sys.stderr = before


def print_rich(*renderables: Any) -> None:
    """Print rich tables and markup; the caller must escape untrusted text in them (`cell`)."""
    from rich.console import Console

    Console(file=sys.stdout.plain if isinstance(sys.stdout, Escaping) else sys.stdout).print(*renderables)


def cell(text: str) -> str:
    """Untrusted text for `print_rich`, with markup and control characters escaped."""
    from rich.markup import escape

    return escape(printable(text))
