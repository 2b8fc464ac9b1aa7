"""Any codec, tile by tile within a memory budget, with blended seams; the tiles are planned in advance."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn

from ldmkit import (
    Codec,
    CompositionError,
    Direction,
    Example,
    InputError,
    PartSpec,
    Reconstruction,
    Value,
    Work,
    check_pictures,
    get,
    part_spec,
)
from ldmkit_codecs.autoencoder import Decoder, Encoder
from ldmkit_codecs.heap import Heap
from ldmkit_codecs.shapes import check_images, check_latents, check_noise
from ldmkit_codecs.spatial import Guide
from ldmkit_codecs.streamed import Streamed
from ldmkit_codecs.stretches import LayerPlan, Measure, best_stretches, measure
from ldmkit_codecs.tiles import TileAxis, best_axes
from ldmkit_codecs.wholes import Place, Unknown, has_norms, passes, twin

Tile: TypeAlias = Callable[..., Tensor]
"""(codec, top, bottom, left, right), in pixels -> the codec's result for that part."""
SIDES = ("top", "bottom", "left", "right")

MIB = 2**20
AMPLE = 16
"""Overlap for deep codecs if the budget allows it, in units of their multiple."""
PROBE = 8
"""Side of the picture in the trial run that measures sizes, in units of the codec's multiple."""


class TiledConfig(Value):
    """The inner codec, and how pictures are divided into tiles.

    Args:
        inner: the codec to run on each tile, `{type, config}`.
        budget_mib: memory for the activations of one run of the codec, in MiB; weights and pictures come on top.
        overlap: minimum overlap of neighbouring tiles, in pixels. Its outer parts are discarded, because they are
            affected by the tile's border, and its middle eighth is blended linearly. For `kl` and `vq`, whose layers
            are known, tiles overlap by exactly the receptive field, and this value is ignored.
        bytes_per_pixel: peak activation memory of the codec; None: estimated from the sizes of its layers.
    """

    inner: PartSpec
    budget_mib: float = Field(default=1024.0, gt=0)
    overlap: int = Field(default=64, ge=0)
    bytes_per_pixel: float | None = Field(default=None, gt=0)


@dataclass(frozen=True)
class Tiling:
    """How a picture is divided into tiles.

    Args:
        rows, columns: tiles along each side, at `starts` of one `size`, in pixels.
        together: pictures of a batch that fit the budget in one run.
    """

    rows: TileAxis
    columns: TileAxis
    together: int

    @property
    def count(self) -> int:
        """Tiles of one picture."""
        return len(self.rows.starts) * len(self.columns.starts)


class TiledCodec(Codec):
    """The inner codec on overlapping tiles: the same channels, factor and keys (under `inner.`).

    A single tile is exactly the inner codec. `kl` and `vq` run in stretches of layers (see `stretches`), and give the
    inner codec's results up to rounding, within the budget. For other codecs, group norms also use statistics of the
    whole picture, gathered in a partial pass over the tiles per norm (see `wholes`); results differ if the receptive
    field exceeds the overlap.
    Gradients are those of the inner codec, run whole: autograd keeps every tile anyway.
    """

    Config = TiledConfig
    config: TiledConfig
    examples = (
        # without norms, and with an overlap larger than the receptive field, tiles are exact
        Example(
            {
                "inner": {
                    "type": "tiny",
                    "config": {"width": 4, "encoder_blocks": (0, 1), "decoder_blocks": (1, 0), "scale": 0.5},
                },
                "budget_mib": 0.1,
                "overlap": 16,
            }
        ),
        Example({"inner": {"type": "identity"}, "budget_mib": 0.005, "overlap": 4}, trained=False, error=0.0),
    )

    def __init__(self, config: TiledConfig | None = None, inner: Codec | None = None):
        super().__init__(config)
        spec = self.config.inner
        self.inner: Codec = get("codec", spec.type)(spec.config) if inner is None else inner
        check_pictures(self.inner.axes, "a tiled codec")
        self.channels, self.factor = self.inner.channels, self.inner.factor
        self._peak: dict[Direction, float] = {}
        self._steps: dict[Direction, tuple[Measure, ...]] = {}

    @classmethod
    def wrap(cls, codec: Codec, **settings: Any) -> TiledCodec:
        """The codec itself (not a copy), tiled; `settings` as in `TiledConfig`."""
        settings = {"inner": part_spec("codec", codec), **settings}
        return cls(TiledConfig.of(settings, "TiledCodec config"), codec)

    @property
    def multiple(self) -> int:
        """As for the inner codec."""
        return self.inner.multiple

    def plan(self, height: int, width: int, direction: Direction = "decode") -> Tiling | LayerPlan:
        """How a picture of this size in pixels is divided within the budget; runs nothing.

        Raises:
            InputError: the budget is too small for any cut.
        """
        if type(getattr(self.inner, f"{direction}r", None)) in (Encoder, Decoder):
            return self._stretches(height, width, direction)
        per_pixel = self.bytes_per_pixel(direction)
        area = int(self.config.budget_mib * MIB / per_pixel)
        unit = self.factor if direction == "decode" else self.multiple
        overlap = -(-self.config.overlap // unit) * unit
        axes = None
        if has_norms(self.inner):  # deep codecs have large receptive fields: overlap more if possible
            axes = best_axes(height, width, area, unit, max(overlap, AMPLE * self.multiple))
        axes = axes or best_axes(height, width, area, unit, overlap)
        if axes is None:
            least = min(height, 2 * overlap or unit) * min(width, 2 * overlap or unit) * per_pixel / MIB
            raise InputError(
                "budget",
                f"{self.config.budget_mib:g} MiB is too little for any tile with an overlap of {overlap} pixels",
                where="budget_mib",
                fits=f"{least * 1.01:.3g} MiB or more, or a smaller overlap",
            )
        rows, columns = axes
        return Tiling(rows, columns, max(1, area // (rows.size * columns.size)))

    def _stretches(self, height: int, width: int, direction: Direction) -> LayerPlan:
        steps = self._measured(direction)
        itemsize: float = self.inner.dtype.itemsize
        if self.config.bytes_per_pixel is not None:  # a single number for all layers: scale the estimates to it
            itemsize = self.config.bytes_per_pixel / max(s.peak for s in steps)
        find = partial(best_stretches, steps, height, width, itemsize)
        budget = int(self.config.budget_mib * MIB)
        found = find(budget)
        if found is None:
            low, high = budget, int(max(s.peak for s in steps) * height * width * itemsize) + 1
            while high - low > low // 100 + 1:
                low, high = ((low + high) // 2, high) if find((low + high) // 2) is None else (low, (low + high) // 2)
            what = f"{self.config.budget_mib:g} MiB is too little for {height}x{width} pixels, with any tiling"
            raise InputError("budget", what, where="budget_mib", fits=f"{high / MIB * 1.01:.3g} MiB or more")
        whole = max(s.peak for s in steps) * height * width * itemsize
        together = max(1, int(budget / whole)) if all(s.whole for s in found) else 1
        return LayerPlan((height, width), found, together, sum(s.work for s in steps) * height * width)

    def _measured(self, direction: Direction) -> tuple[Measure, ...]:
        if direction not in self._steps:
            with torch.device("meta"):
                other: Any = type(self.inner)(self.inner.config)
                side, guide = PROBE * self.multiple, None
                if direction == "decode":
                    given = torch.empty(1, other.config.z_channels, side // self.factor, side // self.factor)
                else:
                    given = torch.empty(1, other.config.in_channels, side, side)
                if direction == "decode" and getattr(other.config, "spatial_groups", None) is not None:
                    guide = Guide(torch.empty(1, self.channels, *given.shape[2:]), self.factor)
                self._steps[direction] = measure(getattr(other.eval(), f"{direction}r"), given, side, guide)
        return self._steps[direction]

    def bytes_per_pixel(self, direction: Direction = "decode") -> float:
        """Peak activation memory of the inner codec, in bytes per pixel: from the config, or estimated.

        The estimate is the largest layer's 3 x input + 2 x output (input, its normalised copy, output, and the blocked
        copies that CPU convolutions make of the last two), in bytes. Measured peaks of KL and tiny decodes, in float32
        and bfloat16 on a CPU, were 0.76 to 0.93 of it.

        Raises:
            CompositionError: the codec cannot run on the meta device, so nothing can be estimated.
        """
        if self.config.bytes_per_pixel is not None:
            return self.config.bytes_per_pixel
        if direction not in self._peak:
            self._peak[direction] = _elements_per_pixel(self.inner, direction)
        return self._peak[direction] * self.inner.dtype.itemsize

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """As the inner codec, tile by tile. Raises the inner codec's errors, and `plan`'s."""
        check_images(images, images.shape[1], self.multiple)
        f = self.factor
        batch, _, height, width = images.shape
        if noise is not None:
            check_noise(noise, (batch, self.channels, height // f, width // f))

        def tile(codec: Codec, rows: slice, top: int, bottom: int, left: int, right: int) -> Tensor:
            drawn = None if noise is None else noise[rows, :, top // f : bottom // f, left // f : right // f]
            return codec.encode(images[rows, :, top:bottom, left:right], drawn)

        return self._run(self.plan(height, width, "encode"), batch, f, tile, images)

    def decode(self, latents: Tensor) -> Tensor:
        """As the inner codec, tile by tile. Raises the inner codec's errors, and `plan`'s."""
        return self._decoded(latents, None)

    def decode_with(self, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        """As the inner codec, tile by tile; each tile gets its part of the picture's noise."""
        return self._decoded(latents, cache(noise))

    def _decoded(self, latents: Tensor, noise: Callable[[int], Tensor] | None) -> Tensor:
        check_latents(latents, self.channels)
        f = self.factor
        batch, _, height, width = latents.shape

        def tile(codec: Codec, rows: slice, top: int, bottom: int, left: int, right: int) -> Tensor:
            part = latents[rows, :, top // f : bottom // f, left // f : right // f]
            if noise is None:
                return codec.decode(part)
            return codec.decode_with(part, lambda index: noise(index)[rows, :, top:bottom, left:right])

        return self._run(self.plan(height * f, width * f, "decode"), batch, 1, tile, latents)

    def _run(self, plan: Tiling | LayerPlan, batch: int, divide: int, tile: Tile, given: Tensor) -> Tensor:
        """Run as many pictures at a time as fit; results are `divide` times smaller than pictures."""
        whole = plan.count == 1 or (torch.is_grad_enabled() and given.requires_grad)
        done = []
        for first in range(0, batch, plan.together):
            one = partial(tile, rows=slice(first, first + plan.together))
            by_place: Tile = lambda codec, *at, one=one: one(codec, **dict(zip(SIDES, at, strict=True)))  # noqa: E731
            if isinstance(plan, LayerPlan):
                codec = self.inner if whole else self._streamed(plan, "decode" if divide == 1 else "encode")
                done.append(by_place(codec, 0, plan.size[0], 0, plan.size[1]))
            elif whole:
                done.append(by_place(self.inner, 0, plan.rows.length, 0, plan.columns.length))
            elif has_norms(self.inner):
                done.append(_whole_norms(plan, divide, self.inner, by_place, self._heap(given)))
            else:
                done.append(_blend(plan, divide, partial(by_place, self.inner), self._heap(given)))
        return done[0] if len(done) == 1 else torch.cat(done)

    def _heap(self, given: Tensor) -> Heap:
        return Heap(given, int(self.config.budget_mib * MIB))

    def _streamed(self, plan: LayerPlan, direction: Direction) -> Codec:
        """The inner codec, its encoder or decoder run by the plan."""
        name = f"{direction}r"
        other = copy.copy(self.inner)
        other._modules = {**self.inner._modules}
        module: Any = self.inner._modules[name]
        other._modules[name] = Streamed(module, self._measured(direction), plan, int(self.config.budget_mib * MIB))
        return other

    def footprint(self, batch: int, size: tuple[int, ...], direction: Direction) -> Work:
        """As for the inner codec, with at most the budget as memory. Repeated work for overlaps is not counted."""
        whole = self.inner.footprint(batch, size, direction)
        return Work(min(whole.bytes, int(self.config.budget_mib * MIB)), whole.flops)

    def raw(self, latents: Tensor) -> Tensor:
        """As for the inner codec."""
        return self.inner.raw(latents)

    def preview(self, latents: Tensor) -> Tensor:
        """As for the inner codec."""
        return self.inner.preview(latents)

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """As for the inner codec: training does not use tiles."""
        return self.inner.reconstruct(images, noise)

    @property
    def standardises(self) -> bool:
        """As for the inner codec."""
        return self.inner.standardises

    @property
    def last_layer(self) -> nn.Parameter:
        """As for the inner codec."""
        return self.inner.last_layer


def _whole_norms(plan: Tiling, divide: int, codec: Codec, tile: Tile, heap: Heap) -> Tensor:
    """Pass over all tiles until every norm has statistics of the whole picture."""
    place = Place()
    other = twin(codec, place)
    return passes(lambda: _blend(plan, divide, partial(tile, other), heap, place))


def _blend(
    plan: Tiling, divide: int, tile: Callable[[int, int, int, int], Tensor], heap: Heap, place: Place | None = None
) -> Tensor:
    """Blend `tile(top, bottom, left, right)` (in pixels); results are `divide` times smaller."""
    rows, columns = plan.rows.scaled(divide), plan.columns.scaled(divide)
    down, across = rows.weights(), columns.weights()
    total, unknown = None, None
    for i, (top, y) in enumerate(zip(plan.rows.starts, rows.starts, strict=True)):
        for j, (left, x) in enumerate(zip(plan.columns.starts, columns.starts, strict=True)):
            bottom, right = top + plan.rows.size, left + plan.columns.size
            if place is not None:
                place.rows, place.columns = (top, bottom), (left, right)
                place.owned_rows, place.owned_columns = plan.rows.owned(i), plan.columns.owned(j)
            heap.settle(total)
            try:
                piece = tile(top, bottom, left, right)
            except Unknown as waiting:
                unknown = waiting.norm
                continue
            dtype = torch.promote_types(piece.dtype, torch.float32)
            if total is None:
                total = piece.new_zeros((*piece.shape[:2], rows.length, columns.length), dtype=dtype)
            weight = (down[i][:, None] * across[j]).to(piece.device, dtype)
            total[..., y : y + rows.size, x : x + columns.size].addcmul_(piece.to(dtype), weight)
    if unknown is not None:
        raise Unknown(unknown)
    assert total is not None
    return total.to(piece.dtype)


def _elements_per_pixel(codec: Codec, direction: Direction) -> float:
    """Largest 3 x input + 2 x output of any layer, in elements per pixel, measured in a run on the meta device."""
    largest = 0

    def record(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        nonlocal largest
        if args and isinstance(args[0], Tensor) and isinstance(out, Tensor):
            largest = max(largest, 3 * args[0].numel() + 2 * out.numel())

    try:
        with torch.device("meta"), torch.no_grad():
            twin = type(codec)(codec.config)
            for module in twin.modules():
                if next(module.children(), None) is None:
                    module.register_forward_hook(record)
            side = PROBE * codec.multiple
            cells = side // codec.factor
            if direction == "decode":
                latents = torch.empty(1, codec.channels, cells, cells)
                record(twin, (latents,), twin.decode(latents))
            else:
                images = torch.empty(1, getattr(codec.config, "in_channels", 3), side, side)
                record(twin, (images,), twin.encode(images))
    except Exception as error:
        what = f"{type(codec).__name__} cannot run on the meta device: {type(error).__name__}: {error}"
        raise CompositionError("cannot-estimate", what, fits="give bytes_per_pixel") from error
    return largest / side**2
