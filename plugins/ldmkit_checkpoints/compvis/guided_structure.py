"""What the keys and shapes of a U-Net in guided-diffusion's layout say about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ldmkit import LazyTensor, SourceError

FIRST = "input_blocks.0.0.weight"


class Structure(NamedTuple):
    """A U-Net as far as its shapes show it; levels count from the full resolution.

    `width` is that of the timestep's code (`num_channels`), `widths` those of the levels.
    """

    width: int
    widths: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    residual_resample: bool
    scale_shift: bool
    inputs: int
    outputs: int
    classes: int | None


def is_guided(tensors: Mapping[str, LazyTensor]) -> bool:
    """Whether a file holds a U-Net alone, without cross-attention, whose time and class are embedded as there."""
    names = ("transformer_blocks.", "input_hint_block.", "label_emb.0.", "encoder_kv.", "temporal")
    alone = FIRST in tensors and "time_embed.0.weight" in tensors and "time_embed.2.weight" in tensors
    return alone and not any(name in key for key in tensors for name in names)


def is_classifier(tensors: Mapping[str, LazyTensor]) -> bool:
    """Whether it holds a classifier: the first half of a U-Net, and a head."""
    half = not any(key.startswith("output_blocks.") for key in tensors)
    return is_guided(tensors) and half and "out.0.weight" in tensors


def structure_of(tensors: Mapping[str, LazyTensor], where: str) -> Structure:
    """The structure of a U-Net, read from its way up, which shows where levels end.

    Raises:
        SourceError: `unsupported`: shapes that no flags of guided-diffusion make.
    """
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    levels: list[list[int]] = [[]]
    attention: list[bool] = []
    kinds: set[bool] = set()
    place = 0
    while (out := shapes.get(f"output_blocks.{place}.0.out_layers.3.weight")) is not None:
        block = f"output_blocks.{place}"
        levels[-1].append(out[0])
        attended = f"{block}.1.qkv.weight" in shapes
        if len(levels[-1]) == 1:
            attention.append(attended)
        last = f"{block}.{1 + attended}"
        if f"{last}.conv.weight" in shapes or f"{last}.in_layers.2.weight" in shapes:
            kinds.add(f"{last}.in_layers.2.weight" in shapes)
            levels.append([])
        place += 1
    counts, per_level = {len(level) for level in levels}, [set(level) for level in levels]
    if counts == {0} or len(counts) > 1 or len(kinds) > 1 or any(len(level) != 1 for level in per_level):
        raise SourceError("unsupported", "its blocks make no levels of one width and one number of blocks", where=where)
    first, code, last = (shapes.get(key, ()) for key in (FIRST, "time_embed.0.weight", "out.2.weight"))
    table, emb = shapes.get("label_emb.weight"), shapes.get("output_blocks.0.0.emb_layers.1.weight", ())
    if len(first) != 4 or len(code) != 2 or len(last) != 4 or len(emb) != 2:
        raise SourceError("unsupported", "it has no first and last convolution, or no time embedding", where=where)
    widths = tuple(level[0] for level in reversed(levels))
    return Structure(
        width=code[1],
        widths=widths,
        blocks=counts.pop() - 1,
        attention=tuple(reversed(attention)),
        residual_resample=kinds == {True},
        scale_shift=emb[0] == 2 * widths[-1],
        inputs=first[1],
        outputs=last[0],
        classes=None if table is None else table[0],
    )
