"""Warnings about valid calls that are likely to give poor or unintended pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ldmkit.contracts.axes import shown_size
from ldmkit.errors import warn
from ldmkit.run.prompting import text_options
from ldmkit.run.sizes import Size, padded

if TYPE_CHECKING:
    from ldmkit.contracts.codec import Codec
    from ldmkit.contracts.conditioner import Conditioner
    from ldmkit.run.request import Resolved

FAR = 2.0
"""Sides that differ from the model's default by more than this factor give a warning."""

NEAR = 24 / 255
"""How far JPEG compression of usual quality moves levels away from black and white."""

UNSCALED = 4.0
"""Standard deviation above that of any scaled latents; unscaled latents of Stable Diffusion have 5.5."""

_LORA = "--lora FILE:0.8, pipe.with_lora(file)"
_SYNTAX = '--syntax a1111, {"text": ..., "syntax": "a1111"}'
_OPTIONS = '--negative text="..." --steps 20 --size 512, or the keys of a .jsonl line'

FOREIGN: tuple[tuple[str, str, str], ...] = (
    (r"(?m)^\s*Negative prompt:|\bSteps: \d+, (?:Sampler|Schedule|CFG|Seed|Size)\b", "sets options", _OPTIONS),
    (r"(?:^|\s)--(?:no?|neg|negative|[whdslg]|ar|aspect|seed|steps|cfg|scale|v|q|stylize|chaos)[\s=]+\S+",
     "sets options", _OPTIONS),
    (r"<(?:lora|lyco|hypernet):[^>]*>", "loads a network", _LORA),
    (r"\bembedding:\S+", "loads an embedding", "--embedding FILE=WORD, pipe.with_embedding(file)"),
    (r"\([^()]*:\s*[+-]?\d*[.,]?\d+\s*\)|\(\([^()]*\)\)|\[\[[^\[\]]*\]\]|\([^()]+\)\d*\.\d+", "weights words",
     _SYNTAX),
    (r"\b\w{2,}(?:\+\+|--)(?=[\s,.]|$)|\b\w+::\s*-?\d*\.?\d", "weights words", ""),
    (r"\)\s*\.(?:blend|swap|and)\(", "mixes texts", ""),
    (r"\[[^\[\]]*[|:][^\[\]]*\]|\{[^{}]*\|[^{}]*\}", "alternates between words", ""),
    (r"(?<!\w)__[\w/*-]+__(?!\w)", "draws a word from a list", "a line for each of --prompts"),
    (r"\bBREAK\b", "combines texts", _SYNTAX),
    (r"\bAND\b", "combines texts", ""),
    (r"\[(?!(?i:sic)\])[^\[\]\d]+\]", "weights words", _SYNTAX),
)  # fmt: skip
"""(pattern, what it does there, what does it here): prompt syntax of A1111, ComfyUI, kohya's scripts, InvokeAI, compel
and Midjourney, which a tokenizer treats as plain text."""


def remark(rows: Sequence[Mapping[str, Any]], size: Size, default: Size | None, codec: Codec) -> None:
    """Warn about empty texts and about sizes that do not suit the model.

    Args:
        rows: parsed inputs.
        size, default: requested size and the model's default: (height, width) in pixels, or one number per axis.
    """
    empty = sorted({key for row in rows for key, value in row.items() if isinstance(value, str) and not value.strip()})
    for key in empty:
        warn(f"the input {key!r} is an empty text; unconditional pictures of the model may be vague")
    for key in dict.fromkeys(
        key for row in rows for key, value in row.items() if "" in map(str.strip, _phrases(value))
    ):
        warn(f"the input {key!r} has a box with an empty phrase, in which anything may be drawn")
    drawn = padded(size, codec)
    if drawn != size:
        warn(f"{_unfit(size, codec)}: {shown_size(drawn)} is drawn and {_CUT[len(size) == 2]}")
    if default is not None and any(not 1 / FAR <= side / own <= FAR for side, own in zip(size, default, strict=True)):
        what = f"the model's default size is {shown_size(default)}"
        warn(f"{what}; {shown_size(size)} is far from it, which may give smeared or repeated objects")


_CUT = {True: "cropped at the bottom and right", False: "cropped at the end of each axis"}


def _unfit(size: Size, codec: Codec) -> str:
    units = [f"{'1 + ' if axis.causal else ''}a multiple of {axis.multiple or axis.factor}" for axis in codec.axes]
    if len(size) == 2 and units[0] == units[1] and not codec.axes[0].causal:
        return f"{shown_size(size)} is not a multiple of the codec's {codec.multiple} pixels"
    wanted = ", ".join(f"{axis.name} {unit}" for axis, unit in zip(codec.axes, units, strict=True))
    return f"{shown_size(size)} does not fit the codec ({wanted})"


def remark_call(request: Resolved, device: str, readers: Mapping[str, Conditioner]) -> None:
    """Warn about masks without effect, prompt syntax of other programs, unscaled latents and autocast.

    Args:
        request: with parsed inputs and negatives.
        device: device type of the run, `cpu` or `cuda`.
        readers: input name -> the conditioner that reads it.
    """
    for side in (request.inputs, request.negative):
        _foreign(side, readers)
    for start in request.starts:
        if start.latents is not None and start.latents.numel() > 1 and float(start.latents.std()) > UNSCALED:
            what = f"the start latents have a standard deviation of {float(start.latents.std()):.3g}"
            warn(f"{what}; scaled latents ((raw - shift) * scale) have about 1")
            break
    masks = [start.mask for start in request.starts if start is not None and start.mask is not None]
    if any(not bool(mask.any()) for mask in masks):
        warn("the mask is black everywhere, so nothing is regenerated (white areas are)")
    if any(map(_rough, masks)):
        what = "the mask has many levels close to black or white, perhaps from JPEG compression"
        warn(f"{what}; only pure black is preserved exactly, and only pure white is fully regenerated")
    if torch.is_autocast_enabled(device):
        dtype = str(torch.get_autocast_dtype(device)).removeprefix("torch.")
        warn(
            f"torch.autocast is on, so parts run in {dtype} regardless of their dtype; the recipe does not record this"
        )


def _rough(mask: Tensor) -> bool:
    """Whether most intermediate levels of a mask are close to black or white, unlike those of a soft edge."""
    between = (mask > 0) & (mask < 1)
    near = between & ((mask < NEAR) | (mask > 1 - NEAR))
    return int(near.sum()) > 0.8 * int(between.sum()) and int(near.sum()) > 0.01 * mask.numel()


def _foreign(rows: Sequence[Mapping[str, Any]], readers: Mapping[str, Conditioner] = {}) -> None:
    for key, text, syntax in dict.fromkeys(_texts(rows)):
        for pattern, meaning, ours in FOREIGN:
            found = re.search(pattern, text)
            if found is None or (meaning == "combines texts" and text.isupper()):
                continue
            if ours == _SYNTAX and syntax == "a1111":
                continue  # it is read
            what = f"the input {key!r} contains {found[0].strip()[:60]!r}, which {meaning} in other programs"
            can = ours and (ours != _SYNTAX or (key in readers and "syntax" in text_options(readers[key])))
            warn(f"{what}; here it is plain text" + (f" ({ours})" if can else ""))
            break


def _texts(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """(input, text, syntax) of all texts, also of those that say how they are read."""
    for row in rows:
        for key, value in row.items():
            text = value if isinstance(value, str) else getattr(value, "text", None)
            if isinstance(text, str):
                yield key, text, getattr(value, "syntax", "plain")
            for phrase in _phrases(value):
                yield key, phrase, "plain"


def _phrases(value: object) -> list[str]:
    """The phrases of a layout's boxes; none, where labels are no texts."""
    labels = [getattr(box, "label", None) for box in getattr(value, "objects", ())]
    return [label for label in labels if isinstance(label, str)]
