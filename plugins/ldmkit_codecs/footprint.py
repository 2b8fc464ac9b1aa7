"""Cost of running a codec, from its config: peak activation memory, and operations.

A residual block of C channels in and D out works with max(3 C + 2 D, C + 4 D) elements a position: its input, the
normed copy, the result, and the blocked copies that CPU convolutions make. Attention over all positions takes 8 D.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ldmkit import Direction, Work

if TYPE_CHECKING:
    from ldmkit_codecs.autoencoder import AutoencoderConfig

Layer = tuple[float, float]
"""Elements and multiplications per pixel of the picture."""


def autoencoder_footprint(
    config: AutoencoderConfig, batch: int, size: tuple[int, int], direction: Direction, itemsize: int
) -> Work:
    """One run of the encoder or decoder of `kl` and `vq`, in a dtype of `itemsize` bytes."""
    return _added(_layers(config, direction, size[0] * size[1]), batch * size[0] * size[1], itemsize)


def tiny_footprint(blocks: Sequence[int], width: int, batch: int, size: tuple[int, int], itemsize: int) -> Work:
    """One run of the encoder or decoder of `tiny`; `blocks` is the number of blocks per level, finest first."""
    # three convolutions per block, and one between stages, counted at the finer map
    layers = [
        (5.0 * width / 4**level, 9.0 * width**2 * (3 * count + (level < len(blocks) - 1)) / 4**level)
        for level, count in enumerate(blocks)
    ]
    return _added(iter(layers), batch * size[0] * size[1], itemsize)


def _layers(config: AutoencoderConfig, direction: Direction, pixels: int) -> Iterator[Layer]:
    last = len(config.widths) - 1
    for level, width in enumerate(config.widths):
        share = 1 / 4**level
        neighbour = max(level - 1, 0) if direction == "encode" else min(level + 1, last)
        count = config.blocks + (direction == "decode")
        for c_in in (config.widths[neighbour], *[width] * (count - 1)):
            yield _block(c_in, width, share)
        if level in config.attention_levels:
            for _ in range(count):
                yield _attention(width, share, pixels if config.level_attention == "vanilla" else 0)
        if level and direction == "decode":  # its last layer upsamples to the next finer level
            finer = width * share * 4
            yield (4.25 * finer, 9.0 * width * finer) if config.resample_conv else (1.25 * finer, 0.0)
    width, share = config.widths[-1], 1 / 4**last
    yield from [_block(width, width, share)] * 2
    if config.mid_attention != "none":
        yield _attention(width, share, pixels if config.mid_attention == "vanilla" else 0)


def _block(c_in: int, c_out: int, share: float) -> Layer:
    return max(3 * c_in + 2 * c_out, c_in + 4 * c_out) * share, 9.0 * c_out * (c_in + c_out) * share


def _attention(width: int, share: float, pixels: int) -> Layer:
    return 8.0 * width * share, (4.0 * width**2 + 2.0 * width * pixels * share) * share


def _added(layers: Iterator[Layer], pixels: int, itemsize: int) -> Work:
    found = list(layers)
    elements = max((layer[0] for layer in found), default=0.0)
    return Work(int(elements * pixels * itemsize), 2 * pixels * sum(layer[1] for layer in found))
