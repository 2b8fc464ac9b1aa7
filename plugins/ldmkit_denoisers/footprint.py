"""Cost of a call of the U-Net, from its config: peak activation memory, and operations.

The skip maps are held until the way up has used them; in addition, one block computes at a time. Elements per position
of its map, with C input and D output channels:

| block | elements | which |
|-------|----------|-------|
| residual | max(3 C + 2 D, C + 4 D) | input, normed copy, result, and the blocked copies of CPU convolutions |
| transformer | 19 D | the map, the tokens, their normed copy, 8 D of the gated layer and 4 D of gate and product each |
| attention, self or joint | 9 D | the map, its tokens, q, k, v, the result, its projection and two transposed copies |

Attention's scores are not counted: fused kernels hold none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ldmkit import Work
from ldmkit_denoisers.config import LevelPlan, UNetConfig, down_levels, mid_level, skip_widths, up_levels

Size = tuple[int, int]


class _Block(NamedTuple):
    """One residual block with its attention: elements that it works with and multiplications, for one row."""

    elements: float
    products: float


def footprint(config: UNetConfig, rows: int, size: Size, itemsize: int) -> Work:
    """One call for x (rows, channels, *size), in a dtype of `itemsize` bytes an element."""
    areas = [height * width for height, width in level_sizes(config, size)]
    held, peak, products = config.widths[0] * areas[0], 0.0, 0.0
    for plan in down_levels(config):
        for block in _blocks(plan, areas[plan.level]):
            peak, products = max(peak, held + block.elements), products + block.products
            held += plan.width * areas[plan.level]
        if plan.resample != "none":
            held += plan.width * areas[plan.level + 1]
    middle = mid_level(config)
    for block in _blocks(middle, areas[middle.level]):
        peak, products = max(peak, held + block.elements), products + block.products
    skips = skip_widths(config)
    for plan in up_levels(config):
        area = areas[plan.level]
        for inputs, block in zip(plan.inputs, _blocks(plan, area), strict=True):
            # the map from below and the skip stay until the block is done, in addition to the joined copy
            peak, products = max(peak, held + inputs * area + block.elements), products + block.products
            held -= skips.pop() * area
        if plan.resample != "none":
            up = 4.25 * plan.width * areas[plan.level - 1]
            peak = max(peak, held + up)
            products += 9 * plan.width**2 * areas[plan.level - 1]
    return Work(int(peak * rows * itemsize), 2 * products * rows)


def level_sizes(config: UNetConfig, size: Size) -> list[Size]:
    """(h, w) of the maps of each level."""
    sizes = [size]
    for plan in down_levels(config):
        if plan.resample != "none":  # half is a sufficient estimate, whichever way it rounds
            sizes.append((max(1, -(-sizes[-1][0] // 2)), max(1, -(-sizes[-1][1] // 2))))
    return sizes + [sizes[-1]] * (config.levels - len(sizes))


def _blocks(plan: LevelPlan, area: int) -> Iterator[_Block]:
    for wide in plan.inputs:
        out = plan.width
        elements = max(3 * wide + 2 * out, wide + 4 * out)
        products = 9.0 * out * (wide + out) * area
        if plan.attention == "self":
            elements = max(elements, 9 * out)
            products += (4 * out**2 + 2 * area * out) * area
        elif plan.attention == "joint":
            elements = max(elements, 9 * out)
            products += ((2 if plan.only_cross else 4) * out**2 + 2 * (0 if plan.only_cross else area) * out) * area
        elif plan.attention == "cross":
            elements = max(elements, 19 * out)
            products += (2 * out**2 + plan.depth * (18 * out**2 + 2 * area * out)) * area
        yield _Block(elements * area, products)
