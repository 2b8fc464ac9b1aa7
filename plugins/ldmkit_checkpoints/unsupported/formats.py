"""A format that ldmkit does not read: how it is recognised, its name, and what would load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ldmkit import SourceError


class Format(NamedTuple):
    """A format that is not read.

    Args:
        sign: how it is recognised: a pattern for tensor keys, the first bytes of a file, the end of its name, or a
            pattern for names in a folder, depending on the table.
        name: name in the error.
        fits: what would load it.
        code: error code.
    """

    sign: Any
    name: str
    fits: str
    code: str = "unsupported"


ITS_WRITER = "the program that wrote it; ldmkit does not load it yet"
UPDATE = "the model that it changes: ldmkit.load(model).with_lora(file), or ldmkit sample MODEL --lora FILE"
ADAPTER = (
    "the model that it is for: ldmkit.load(model).with_adapter_file(file, ...), or ldmkit sample MODEL --adapter FILE"
)
PUBLISHED = "the model's .safetensors or .ckpt, or diffusers' folder"


def unsupported(what: str, fits: str, path: Path) -> SourceError:
    """The error for a file or folder of another format."""
    return SourceError("unsupported", f"it is {what}", where=str(path), fits=fits)
