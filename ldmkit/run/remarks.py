"""What is said of a call before it is drawn, although nothing of it is wrong: pictures that come out poor."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ldmkit.contracts.axes import shown_size
from ldmkit.errors import warn
from ldmkit.run.sizes import Size, padded

if TYPE_CHECKING:
    from ldmkit.contracts.codec import Codec
    from ldmkit.run.request import Resolved

FAR = 2.0
"""Sides this many times larger or smaller than the model's own draw a remark."""

NEAR = 24 / 255
"""How far JPEG of usual quality takes levels from black and white."""

UNSCALED = 4.0
"""Standard deviation of latents beyond those of any scaled codec; raw ones of Stable Diffusion have 5.5."""

FOREIGN: tuple[tuple[str, str], ...] = (
    (r"<(?:lora|lyco|hypernet):[^>]*>", "loads a network"),
    (r"\bembedding:\S+", "loads an embedding"),
    (r"\([^()]*:\s*[+-]?\d*\.?\d+\s*\)|\(\([^()]*\)\)|\[\[[^\[\]]*\]\]", "weighs words"),
    (r"\b\w{2,}(?:\+\+|--)(?=[\s,.]|$)", "weighs words"),
    (r"\[[^\[\]]*[|:][^\[\]]*\]|\{[^{}]*\|[^{}]*\}", "alternates between words"),
    (r"\b(?:BREAK|AND)\b", "combines texts"),
)
"""What means something in prompts of A1111, ComfyUI, kohya's scripts and compel, and is plain text to a tokenizer."""


def remark(rows: Sequence[Mapping[str, Any]], size: Size, default: Size | None, codec: Codec) -> None:
    """Warn of empty texts and of sizes that the model was not made for.

    Args:
        rows: parsed inputs.
        size, default: (height, width) in pixels, or one number an axis; asked for and the model's own.
    """
    empty = sorted({key for row in rows for key, value in row.items() if isinstance(value, str) and not value.strip()})
    for key in empty:
        warn(f"the input {key!r} is an empty text: it asks for nothing, and what a model draws by itself may be vague")
    drawn = padded(size, codec)
    if drawn != size:
        warn(f"{_unfit(size, codec)}: {shown_size(drawn)} is drawn and {_CUT[len(size) == 2]}")
    if default is not None and any(not 1 / FAR <= side / own <= FAR for side, own in zip(size, default, strict=True)):
        what = f"the model draws {shown_size(default)} by itself"
        warn(f"{what}: {shown_size(size)} is far from that, and things may be smeared or repeated")


_CUT = {True: "cut at the bottom and right", False: "cut at the end of each axis"}


def _unfit(size: Size, codec: Codec) -> str:
    units = [f"{'1 + ' if axis.causal else ''}a multiple of {axis.multiple or axis.factor}" for axis in codec.axes]
    if len(size) == 2 and units[0] == units[1] and not codec.axes[0].causal:
        return f"{shown_size(size)} is no multiple of the codec's {codec.multiple} pixels"
    wanted = ", ".join(f"{axis.name} {unit}" for axis, unit in zip(codec.axes, units, strict=True))
    return f"{shown_size(size)} does not fit the codec ({wanted})"


def remark_call(request: Resolved, device: str) -> None:
    """Warn of what a call holds and is read otherwise, or not at all: masks, other programs' syntax, autocast.

    Args:
        request: its inputs and negatives parsed.
        device: that the run is on, `cpu` or `cuda`.
    """
    for side in (request.inputs, request.negative):
        _foreign(side)
    for start in request.starts:
        if start.latents is not None and start.latents.numel() > 1 and float(start.latents.std()) > UNSCALED:
            what = f"the latents to start from have a standard deviation of {float(start.latents.std()):.3g}"
            warn(f"{what}: those of a codec have about 1 once they are scaled ((raw - shift) * scale)")
            break
    masks = [start.mask for start in request.starts if start is not None and start.mask is not None]
    if any(not bool(mask.any()) for mask in masks):
        warn("the mask is black everywhere: nothing is drawn anew (white is)")
    if any(map(_rough, masks)):
        what = "the mask has many levels near black or white: traces of JPEG compression, say"
        warn(f"{what}; what is not quite black is not preserved exactly, nor what is not quite white all new")
    if torch.is_autocast_enabled(device):
        dtype = str(torch.get_autocast_dtype(device)).removeprefix("torch.")
        warn(f"torch.autocast is on: parts run in {dtype} whatever their dtype, which a picture's recipe cannot say")


def _rough(mask: Tensor) -> bool:
    """Whether most of what is neither black nor white in a mask nearly is: a soft edge has all levels alike."""
    between = (mask > 0) & (mask < 1)
    near = between & ((mask < NEAR) | (mask > 1 - NEAR))
    return int(near.sum()) > 0.8 * int(between.sum()) and int(near.sum()) > 0.01 * mask.numel()


def _foreign(rows: Sequence[Mapping[str, Any]]) -> None:
    for key, text in dict.fromkeys((k, v) for row in rows for k, v in row.items() if isinstance(v, str)):
        for pattern, meaning in FOREIGN:
            found = re.search(pattern, text)
            if found is None or (meaning == "combines texts" and text.isupper()):
                continue
            what = f"the input {key!r} holds {found[0][:60]!r}, which {meaning} in other programs"
            warn(f"{what}: here it is read as the words that it is made of")
            break
