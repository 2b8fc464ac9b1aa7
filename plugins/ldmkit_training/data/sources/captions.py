"""What the text of a caption file says, wherever it lies: beside its picture or in an archive."""

from __future__ import annotations

import codecs
import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from ldmkit import InputError

MAX_BYTES = 1 << 20
"""Of a caption file."""

YOLO = re.compile(r"\d+(\s+-?\d*\.?\d+(e-?\d+)?){4,}")
"""A line of the files that YOLO's tools keep beside pictures, with the ending of captions."""

Lines = Literal["one", "each", "first", "whole"]
"""What several lines of a caption file are: an error; captions each, of which one is drawn whenever the picture is
used; all but the first left out; one caption."""


def _known(encoding: str) -> str:
    try:
        codecs.lookup(encoding)
        "".encode(encoding)
    except (LookupError, ValueError):
        raise ValueError(f"there is no encoding of texts {encoding!r}: utf-8, latin-1, cp1252, utf-16 ...") from None
    return encoding


Encoding = Annotated[str, AfterValidator(_known)]
"""How texts are written, by Python's names."""


def text_of(data: bytes, where: str, encoding: str = "utf-8") -> str:
    """A text file's text, with or without a byte-order mark.

    Raises:
        InputError: `bad-file`: it is not of the encoding, or holds a NUL.
    """
    if codecs.lookup(encoding) == codecs.lookup("utf-8"):
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeError:
        kind = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding (Latin-1, say)"
        wanted = "UTF-8" if encoding == "utf-8-sig" else encoding
        fits = f"{wanted}, or `encoding`, where the source has it"
        raise InputError("bad-file", f"not {wanted} text, but {kind}", where=where, fits=fits) from None
    if "\0" in text:
        raise InputError("bad-file", "a NUL character in a text", where=where, fits="UTF-8 text")
    return text


def captions_of(data: bytes, where: str, lines: Lines, encoding: str = "utf-8") -> tuple[list[str], bool]:
    """The captions of a file, none where it holds only blanks, and whether all but the first were left out.

    Raises:
        InputError: `bad-file`: no text of the encoding, YOLO's boxes, or several lines where one is expected.
    """
    text = text_of(data, where, encoding)
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    listed = [line.strip() for line in plain.split("\n") if line.strip()]
    if listed and all(YOLO.fullmatch(line) for line in listed):
        what = f"{listed[0][:60]!r} is no caption: a class and a box or an outline, as YOLO writes them"
        raise InputError("bad-file", what, where=where, fits="texts; or boxes in metadata.jsonl or COCO's format")
    if len(listed) <= 1 or lines == "each":
        return listed, False
    if lines == "whole":
        return [plain.strip()], False
    if lines == "first":
        return listed[:1], True
    fits = "lines: each (one of them is drawn whenever the picture is used), first, or whole"
    raise InputError("bad-file", f"{len(listed)} lines of captions", where=where, fits=fits)
