"""Any codec, tile by tile within a memory budget; seams are blended, and the tiles are known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from ldmkit.compose import part_spec
from ldmkit.contracts import Codec, Reconstruction
from ldmkit.errors import CompositionError, InputError
from ldmkit.examples import Example
from ldmkit.plugins import get
from ldmkit.spec import PartSpec
from ldmkit.value import Value
from ldmkit_codecs.shapes import check_images, check_latents, check_noise
from ldmkit_codecs.tiles import Axis, best_axes
from ldmkit_codecs.wholes import SETTLED, Place, looks_far, twin

Direction = Literal["encode", "decode"]
Tile: TypeAlias = Callable[..., Tensor]
"""(codec, top, bottom, left, right), in pixels -> what the codec makes of that part."""
SIDES = ("top", "bottom", "left", "right")

MIB = 2**20
AMPLE = 16
"""Overlap that deep codecs get where the budget allows, in units of their multiple."""
PROBE = 8
"""Side of the trial run that sizes are read from, in units of the codec's multiple."""


class TiledConfig(Value):
    """Which codec, and how it is cut.

    Args:
        inner: the codec to run on each tile, `{type, config}`.
        budget_mib: memory for the activations of one run of the codec, in MiB; weights and pictures come on top.
        overlap: of neighbouring tiles, in pixels at least; the outer parts of it are thrown away, since the codec
            saw the tile's border there, and the middle eighth is blended linearly.
        bytes_per_pixel: of activations at the codec's peak; None: estimated from the sizes of its layers.
    """

    inner: PartSpec
    budget_mib: float = Field(default=1024.0, gt=0)
    overlap: int = Field(default=64, ge=0)
    bytes_per_pixel: float | None = Field(default=None, gt=0)


@dataclass(frozen=True)
class Plan:
    """How one picture will be cut.

    Args:
        rows, columns: tiles along each side, at `starts` of one `size`, in pixels.
        together: pictures of a batch that fit the budget in one run.
    """

    rows: Axis
    columns: Axis
    together: int

    @property
    def count(self) -> int:
        """Tiles a picture."""
        return len(self.rows.starts) * len(self.columns.starts)


class TiledCodec(Codec):
    """The inner codec on overlapping tiles: the same channels, factor and keys (under `inner.`).

    One tile is exactly the inner codec. Of several, group norms and the attentions of our codecs still see the whole
    picture: the tiles are run again until what they gather about it has settled (see `wholes`). They differ from the
    inner codec where another layer sees further than the overlap. Gradients are those of the inner codec, run whole:
    autograd keeps every tile anyway.
    """

    Config = TiledConfig
    config: TiledConfig
    examples = (
        # without norms, and with an overlap beyond what the layers see, tiles are exact
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
        self.channels, self.factor = self.inner.channels, self.inner.factor
        self._peak: dict[Direction, float] = {}

    @classmethod
    def wrap(cls, codec: Codec, **settings: Any) -> TiledCodec:
        """The codec itself (not a copy), tiled; `settings` as in `TiledConfig`."""
        settings = {"inner": part_spec("codec", codec), **settings}
        return cls(TiledConfig.of(settings, "TiledCodec config"), codec)

    @property
    def multiple(self) -> int:
        """The inner codec's."""
        return self.inner.multiple

    def plan(self, height: int, width: int, direction: Direction = "decode") -> Plan:
        """The tiles for a picture of this size in pixels, within the budget; nothing is run.

        Raises:
            InputError: the budget is too small for any tile of twice the overlap.
        """
        per_pixel = self.bytes_per_pixel(direction)
        area = int(self.config.budget_mib * MIB / per_pixel)
        unit = self.factor if direction == "decode" else self.multiple
        overlap = -(-self.config.overlap // unit) * unit
        axes = None
        if looks_far(self.inner):  # deep codecs see further than the least overlap: more of it, where there is room
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
        return Plan(rows, columns, max(1, area // (rows.size * columns.size)))

    def bytes_per_pixel(self, direction: Direction = "decode") -> float:
        """Activations at the inner codec's peak, a pixel: given in the config, or estimated.

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
        check_latents(latents, self.channels)
        f = self.factor
        batch, _, height, width = latents.shape

        def tile(codec: Codec, rows: slice, top: int, bottom: int, left: int, right: int) -> Tensor:
            return codec.decode(latents[rows, :, top // f : bottom // f, left // f : right // f])

        return self._run(self.plan(height * f, width * f, "decode"), batch, 1, tile, latents)

    def _run(self, plan: Plan, batch: int, divide: int, tile: Tile, given: Tensor) -> Tensor:
        """Blended tiles, of as many pictures at a time as fit; results are `divide` times smaller than pictures."""
        whole = plan.count == 1 or (torch.is_grad_enabled() and given.requires_grad)
        done = []
        for first in range(0, batch, plan.together):
            one = partial(tile, rows=slice(first, first + plan.together))
            if whole:
                done.append(one(self.inner, top=0, bottom=plan.rows.length, left=0, right=plan.columns.length))
                continue
            by_place: Tile = lambda codec, *at, one=one: one(codec, **dict(zip(SIDES, at, strict=True)))  # noqa: E731
            if looks_far(self.inner):
                done.append(_until_settled(plan, divide, self.inner, by_place))
            else:
                done.append(_blend(plan, divide, partial(by_place, self.inner)))
        return done[0] if len(done) == 1 else torch.cat(done)

    def raw(self, latents: Tensor) -> Tensor:
        """The inner codec's."""
        return self.inner.raw(latents)

    def preview(self, latents: Tensor) -> Tensor:
        """The inner codec's."""
        return self.inner.preview(latents)

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """The inner codec's: training does not tile."""
        return self.inner.reconstruct(images, noise)

    @property
    def standardises(self) -> bool:
        """The inner codec's."""
        return self.inner.standardises

    @property
    def last_layer(self) -> nn.Parameter:
        """The inner codec's."""
        return self.inner.last_layer


def _until_settled(plan: Plan, divide: int, codec: Codec, tile: Tile) -> Tensor:
    """Passes over all tiles until what they gather about the whole picture moves no more."""
    place = Place(plan.rows, plan.columns)
    other = cast(Codec, twin(codec, place))
    found = _blend(plan, divide, partial(tile, other), place)
    for _ in range(len(place.gathering)):
        if max([layer.turn() for layer in place.gathering]) < SETTLED:
            break
        del found  # two pictures at a time are one too many
        found = _blend(plan, divide, partial(tile, other), place)
    return found


def _blend(plan: Plan, divide: int, tile: Callable[[int, int, int, int], Tensor], place: Place | None = None) -> Tensor:
    """Blend `tile(top, bottom, left, right)` (in pixels); results are `divide` times smaller."""
    rows, columns = plan.rows.scaled(divide), plan.columns.scaled(divide)
    down, across = rows.weights(), columns.weights()
    total: Tensor | None = None
    for i, (top, y) in enumerate(zip(plan.rows.starts, rows.starts, strict=True)):
        for j, (left, x) in enumerate(zip(plan.columns.starts, columns.starts, strict=True)):
            if place is not None:
                place.row, place.column = i, j
            piece = tile(top, top + plan.rows.size, left, left + plan.columns.size)
            dtype = torch.promote_types(piece.dtype, torch.float32)
            if total is None:
                total = piece.new_zeros((*piece.shape[:2], rows.length, columns.length), dtype=dtype)
            weight = (down[i][:, None] * across[j]).to(piece.device, dtype)
            total[..., y : y + rows.size, x : x + columns.size].addcmul_(piece.to(dtype), weight)
    assert total is not None
    return total.to(piece.dtype)


def _elements_per_pixel(codec: Codec, direction: Direction) -> float:
    """Largest 3 x input + 2 x output of any layer, in elements a pixel, read from a run without data."""
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
        what = f"{type(codec).__name__} cannot be measured without data: {type(error).__name__}: {error}"
        raise CompositionError("cannot-estimate", what, fits="give bytes_per_pixel") from error
    return largest / side**2
