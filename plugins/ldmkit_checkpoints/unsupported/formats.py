"""How a file or folder that ldmkit does not read is told, what it is called, and what would load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ldmkit.errors import SourceError


class Format(NamedTuple):
    """A format that is not read.

    Args:
        sign: what shows it: a pattern of a tensor's key, the first bytes or the last letters of a file's name, or a
            pattern of a member's name; the table says which.
        name: in the error.
        fits: what would load it.
        code: of the error.
    """

    sign: Any
    name: str
    fits: str
    code: str = "unsupported"


ITS_WRITER = "the program that wrote it; ldmkit does not load it yet"
PUBLISHED = "the model's .safetensors or .ckpt, or diffusers' folder"


def unsupported(what: str, fits: str, path: Path) -> SourceError:
    """The error for a file or folder of another format."""
    return SourceError("unsupported", f"it is {what}", where=str(path), fits=fits)
