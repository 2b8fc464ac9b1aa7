"""A denoiser whose pixels are cells of pixels: most of a large picture's work at a lower resolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from ldmkit import (
    CompositionError,
    Context,
    Denoiser,
    Example,
    PartSpec,
    Plane,
    Signal,
    SpecError,
    Value,
    Work,
)
from ldmkit_denoisers.config import SMALL
from ldmkit_denoisers.unet import check_plane_size
from ldmkit_denoisers.wrapped import WrappedContext, inner_context, inner_denoiser

INNER = {
    "type": "unet",
    "config": {**SMALL, "channels": 12, "in_channels": 24, "attention": ("none", "cross"), "context_dim": 6},
}
"""A denoiser of cells of 2x2 pixels, for examples."""


class CellsConfig(Value):
    """
    Args:
        inner: the denoiser of cells, `{type, config}`; its channels and its plane's are the pixels' times cell^2.
        cell: side of the cells of pixels whose values become channels; 1: none.
        residual: add the plane's first `channels` channels to the output: a network that predicts x0 and reads an
            enlarged picture learns what that picture lacks. Of use with `prediction: x0` only.
    """

    inner: PartSpec
    cell: int = Field(default=2, ge=1, le=16)
    residual: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.inner.type == "cells":
            raise SpecError("inner", "cells of cells", where="inner", fits="one `cell`, the product of both")
        return self


@dataclass
class CellsContext(WrappedContext):
    """The inner context has the plane in cells.

    Args:
        plane: in pixels, (B, C, H, W); None without that slot. Patches cut it.
        whole: the plane that the inner context's was folded from.
    """

    plane: Tensor | None = None
    whole: Tensor | None = None


class CellsDenoiser(Denoiser):
    """F(x) = unfold(inner(fold(x), fold(plane))), where fold makes each cell of pixels a pixel of more channels.

    Convolutions at full resolution are most of the work of a U-Net on pixels. Fewer of them there is what Imagen's
    Efficient U-Net does (Saharia et al. 2022); Hoogeboom et al. 2023 (arXiv:2301.11093) fold pixels as
    here, and Shi et al. 2016 (arXiv:1609.05158) unfold them for enlarging. Sides that are no multiple of `cell` are
    continued by their last row or column, and the result is cut.

    Slots and ports are the inner denoiser's, the plane with `channels / cell^2` channels. State-dict names: those of
    the inner denoiser under `inner.`.
    """

    Config = CellsConfig
    config: CellsConfig
    examples = (
        Example({"inner": INNER, "residual": True}),
        Example({"inner": {"type": "unet", "config": {**SMALL, "in_channels": 5}}, "cell": 1}),
    )

    def __init__(self, config: CellsConfig | None = None):
        super().__init__(config)
        spec, cell = self.config.inner, self.config.cell
        self.inner = inner_denoiser(spec, "cells")
        self.channels = _pixels(self.inner.channels, cell, "channels")
        self.smallest = self.inner.smallest * cell - (cell - 1)
        self.slots = dict(self.inner.slots)
        plane = self.slots.get("plane")
        if plane is not None:
            self.slots["plane"] = plane._replace(dim=_pixels(plane.dim, cell, "plane channels"))
        if self.config.residual and (plane is None or self.slots["plane"].dim < self.channels):
            have = "none" if plane is None else f"one of {self.slots['plane'].dim} channels"
            what = f"the output is added to a plane of {self.channels} channels or more, and the network reads {have}"
            raise SpecError(
                "residual", what, where="residual", fits="in_channels of the inner network, or residual: false"
            )
        self.ports = self.inner.ports
        self.regions = self.inner.regions or (type(self.inner),)

    def footprint(self, rows: int, size: tuple[int, ...]) -> Work:
        """The inner denoiser's, for the map of cells."""
        return self.inner.footprint(rows, tuple(-(-side // self.config.cell) for side in size))

    def prepare(self, signals: Mapping[str, Signal]) -> CellsContext:
        """The inner denoiser's `prepare`, with the plane in cells."""
        plane = signals.get("plane")
        if not isinstance(plane, Plane):
            return CellsContext(signals, inner=self.inner.prepare(signals))
        folded = {**signals, "plane": Plane(self._folded(plane.value))}
        return CellsContext(signals, inner=self.inner.prepare(folded), plane=plane.value, whole=plane.value)

    def adapted(self, context: Context) -> Context:
        """The inner denoiser's `adapted`."""
        if isinstance(context, WrappedContext) and context.inner is not None:
            context.inner = self.inner.adapted(inner_context(context))
        return context

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        """F, of x's size.

        Raises:
            CompositionError: the context is another network's.
            InputError: the plane has another size than x.
        """
        if not isinstance(context, CellsContext) or context.inner is None:
            raise CompositionError("foreign-context", "the context was not prepared by this denoiser")
        height, width = x.shape[-2:]
        cells = self.inner(self._folded(x), t, self._within(context, (height, width)), sigma)
        made = F.pixel_shuffle(cells, self.config.cell)[..., :height, :width]
        if not self.config.residual:
            return made
        assert context.plane is not None, "a required slot, which the inner denoiser's `prepare` checks"
        return made + context.plane[:, : self.channels].to(made.dtype)

    def _within(self, context: CellsContext, size: tuple[int, int]) -> Context:
        """The inner context for x of a size: a plane that was cut to a patch since `prepare` is folded anew."""
        inner, plane = inner_context(context), context.plane
        if plane is None:
            return inner
        check_plane_size(plane, size)
        if plane is context.whole:
            return inner
        if getattr(inner, "plane", None) is None:
            what = f"patches around cells around {type(self.inner).__name__}, whose plane cannot be cut"
            raise CompositionError("not-croppable", what, fits="cells of a U-Net, or patches within the cells")
        return replace(inner, plane=self._folded(plane))  # type: ignore[call-arg]

    def _folded(self, x: Tensor) -> Tensor:
        cell = self.config.cell
        below, right = -x.shape[-2] % cell, -x.shape[-1] % cell
        whole = F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
        return F.pixel_unshuffle(whole, cell)


def _pixels(channels: int, cell: int, what: str) -> int:
    """Channels of a pixel, of those of a cell.

    Raises:
        SpecError: they are no multiple.
    """
    if channels % (cell * cell):
        told = f"{channels} {what} of cells of {cell}x{cell} pixels"
        raise SpecError("cell-channels", told, where="inner", fits=f"a multiple of {cell * cell}")
    return channels // (cell * cell)
