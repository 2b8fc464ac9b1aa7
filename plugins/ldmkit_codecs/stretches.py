"""Planning of an encoder or decoder within a memory budget: where the whole feature map is kept, and tiles in between.

A stretch is a sequence of steps between two maps that are kept whole. If it fits the budget, it runs whole. Otherwise
it is divided into tiles with margins as wide as the receptive field of its layers, so that results are exact, and runs
once per norm (see `wholes`). Keeping more maps repeats fewer steps, but takes more memory. The cheapest plan that fits
is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from ldmkit_codecs.autoencoder import Attention, Decoder, Encoder, LayerCall, LinearAttention
from ldmkit_codecs.spatial import Guide
from ldmkit_codecs.wholes import Span

FAR = (Attention, LinearAttention)
"""Steps whose receptive field is the whole map."""


@dataclass(frozen=True)
class Measure:
    """One step, measured without data.

    Args:
        stride_in, stride_out: pixels per position of the input and the output map.
        reach: reach of its convolutions, in pixels.
        held: elements of the output, per pixel.
        peak: largest 3 x input + 2 x output of its layers, in elements per pixel.
        work: multiplications per pixel.
        norms: work before each of its norms.
        far: whether its receptive field is the whole map.
        unit: pixels of which the bounds of its tiles are multiples, if it reads a guide.
    """

    stride_in: int
    stride_out: int
    reach: int
    held: float
    peak: float
    work: float
    norms: tuple[float, ...]
    far: bool
    unit: int = 1


@dataclass(frozen=True)
class Stretch:
    """Steps `first` to `last` - 1, on tiles of `height` x `width` owned pixels and `margin` more on each side.

    Args:
        whole: run on the whole picture, with ordinary norms.
        work: multiplications, including repeated ones.
    """

    first: int
    last: int
    height: int
    width: int
    margin: int
    whole: bool
    work: float


@dataclass(frozen=True)
class LayerPlan:
    """The plan for one picture: `stretches`, one after another.

    Args:
        size: of the picture, in pixels.
        together: pictures of a batch that fit the budget in one run.
        once: multiplications without repetition; those of the stretches add up to more.
    """

    size: tuple[int, int]
    stretches: tuple[Stretch, ...]
    together: int
    once: float

    @property
    def count(self) -> int:
        """Largest number of tiles of a stretch."""
        return max(len(list(tiles(self.size, s))) for s in self.stretches)

    @property
    def repeated(self) -> float:
        """Work relative to that without tiles."""
        return sum(s.work for s in self.stretches) / self.once


def measure(module: Encoder | Decoder, given: Tensor, side: int, guide: Guide | None = None) -> tuple[Measure, ...]:
    """Every step of a module on the meta device; `given` goes in, of a picture of `side` pixels."""
    unit = 1 if guide is None else guide.factor
    area, x = side * side, given
    found: list[Measure] = []
    for step in steps_of(module, guide):
        seen: list[tuple[nn.Module, Tensor, Tensor]] = []
        with torch.no_grad():
            out = _watched(module, step, x, seen)
        stride_in, stride_out = side // x.shape[-1], side // out.shape[-1]
        reach, work, norms, peak = 0, 0.0, [], 3 * x.numel() + 2 * out.numel()
        for layer, into, result in seen:
            peak = max(peak, 3 * into.numel() + 2 * result.numel())
            if isinstance(layer, nn.GroupNorm):
                norms.append(work / area)
            if isinstance(layer, nn.Conv2d):
                kernel, stride = layer.kernel_size[0], layer.stride[0]
                per_position = side // result.shape[-1] // stride  # what goes in may be padded, and by half at one side
                reach += per_position * (kernel // 2 if stride == 1 else kernel - 1)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                work += result.numel() * layer.weight[0].numel()
        held, far = out.numel() / area, isinstance(getattr(step, "func", step), FAR)
        found.append(Measure(stride_in, stride_out, reach, held, peak / area, work / area, tuple(norms), far, unit))
        x = out
    return tuple(found)


def steps_of(module: Encoder | Decoder, guide: Guide | None) -> list[LayerCall]:
    """The steps of a module; only decoders with spatial norms take a guide."""
    return module.steps() if isinstance(module, Encoder) else module.steps(guide)


def _watched(module: nn.Module, step: LayerCall, x: Tensor, seen: list[tuple[nn.Module, Tensor, Tensor]]) -> Tensor:
    def record(layer: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        seen.append((layer, args[0], out))

    leaves = [layer for layer in module.modules() if next(layer.children(), None) is None]
    hooks = [layer.register_forward_hook(record) for layer in leaves]
    try:
        return step(x)
    finally:
        for hook in hooks:
            hook.remove()


@lru_cache(maxsize=64)
def best_stretches(
    steps: tuple[Measure, ...], height: int, width: int, itemsize: float, budget: int
) -> tuple[Stretch, ...] | None:
    """The stretches with the least work whose maps and tiles take at most `budget` bytes; None if there are none.

    Args:
        itemsize: bytes per element.
    """
    best: list[tuple[float, tuple[Stretch, ...]] | None] = [(0.0, ())]
    for last in range(1, len(steps) + 1):
        found: tuple[float, tuple[Stretch, ...]] | None = None
        for first in range(last):
            before = best[first]
            one = None if before is None else _stretch(steps, first, last, height, width, itemsize, budget)
            if before is not None and one is not None and (found is None or before[0] + one.work < found[0]):
                found = (before[0] + one.work, (*before[1], one))
        best.append(found)
    done = best[-1]
    return None if done is None else done[1]


def _stretch(
    steps: Sequence[Measure], first: int, last: int, height: int, width: int, itemsize: float, budget: int
) -> Stretch | None:
    part, area = steps[first:last], height * width
    work, peak = sum(s.work for s in part), max(s.peak for s in part)
    source = steps[first - 1].held if first else 0.0
    if (peak + (source if last - first > 1 else 0)) * area * itemsize <= budget:
        return Stretch(first, last, height, width, 0, True, work * area)
    if any(s.far for s in part):
        return None
    held = source + (part[-1].held if last < len(steps) else 0)
    room = int((budget - held * area * itemsize) / (peak * itemsize))
    unit = max(max(s.stride_in, s.stride_out, s.unit) for s in part)
    margin = -(-sum(s.reach for s in part) // unit) * unit
    cut = _cut(height, width, room, unit, margin)
    if cut is None:
        return None
    starts = accumulate((s.work for s in part), initial=0.0)
    again = sum(start + norm for start, s in zip(starts, part, strict=False) for norm in s.norms)
    done = Stretch(first, last, *cut, margin, False, 0.0)
    computed = sum((t[0][1] - t[0][0]) * (t[1][1] - t[1][0]) for t in tiles((height, width), done))
    return Stretch(first, last, *cut, margin, False, (work + again) * computed)


def _cut(height: int, width: int, room: int, unit: int, margin: int) -> tuple[int, int] | None:
    """Owned height and width of tiles of at most `room` pixels with their margins, that compute the fewest pixels."""
    best: tuple[int, int, int] | None = None
    for rows in range(1, height // unit + 1):
        owned = _share(height, rows, unit)
        tall = min(height, owned + 2 * margin)
        wide = room // tall
        across = width if wide >= width else (wide - 2 * margin) // unit * unit
        if across > 0:
            columns = -(-width // across)
            across = _share(width, columns, unit)
            cost = rows * columns * tall * min(width, across + 2 * margin)
            if best is None or cost < best[0]:
                best = (cost, owned, across)
        if owned <= max(unit, margin // 4):
            break  # most of the work would be for margins
    return None if best is None else best[1:]


def _share(length: int, count: int, unit: int) -> int:
    return -(-length // (count * unit)) * unit


def tiles(size: tuple[int, int], stretch: Stretch) -> Iterator[tuple[Span, Span, Span, Span]]:
    """Rows and columns that each tile covers, and those whose results it provides, in pixels."""
    for rows, owned_rows in _spans(size[0], stretch.height, stretch.margin):
        for columns, owned_columns in _spans(size[1], stretch.width, stretch.margin):
            yield rows, columns, owned_rows, owned_columns


def _spans(length: int, owned: int, margin: int) -> Iterator[tuple[Span, Span]]:
    for start in range(0, length, owned):
        end = min(length, start + owned)
        yield (max(0, start - margin), min(length, end + margin)), (start, end)
