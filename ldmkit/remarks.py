"""What is said of a call before it is drawn, although nothing of it is wrong: pictures that come out poor."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ldmkit.contracts import Codec
from ldmkit.sizes import Size, padded

FAR = 2.0
"""Sides this many times larger or smaller than the model's own draw a remark."""


class DrawingWarning(UserWarning):
    """A call that is drawn as it was asked for, with a result that may not be what was meant."""


def remark(rows: Sequence[Mapping[str, Any]], size: Size, default: Size | None, codec: Codec) -> None:
    """Warn of empty texts and of sizes that the model was not made for.

    Args:
        rows: parsed inputs.
        size, default: (height, width) in pixels, asked for and the model's own.
    """
    empty = sorted({key for row in rows for key, value in row.items() if isinstance(value, str) and not value.strip()})
    for key in empty:
        _say(f"the input {key!r} is an empty text: it asks for nothing, and what a model draws by itself may be vague")
    drawn = padded(size, codec.multiple)
    if drawn != size:
        what = f"{size[0]}x{size[1]} is no multiple of the codec's {codec.multiple} pixels"
        _say(f"{what}: {drawn[0]}x{drawn[1]} is drawn and cut at the bottom and right")
    if default is not None and any(not 1 / FAR <= side / own <= FAR for side, own in zip(size, default, strict=True)):
        what = f"the model draws {default[0]}x{default[1]} by itself"
        _say(f"{what}: {size[0]}x{size[1]} is far from that, and things may be smeared or repeated")


def _say(what: str) -> None:
    warnings.warn(what, DrawingWarning, stacklevel=caller_level() + 1)


def caller_level() -> int:
    """The `stacklevel` with which a warning names the first line outside of ldmkit that led here."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "ldmkit":
        frame, level = frame.f_back, level + 1
    return level
