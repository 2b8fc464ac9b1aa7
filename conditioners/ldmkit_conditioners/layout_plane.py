"""Layouts as a plane: boxes painted on the latents' grid with learned vectors for their classes, for new models."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ldmkit import Example, InputError, OnGrid, Plane, SignalKind, Value
from ldmkit.bounds import Length, Rows, Width
from ldmkit_conditioners.boxed import Boxed
from ldmkit_conditioners.label import class_number
from ldmkit_conditioners.layout import EXAMPLE, Box, Layout


class LayoutPlaneConfig(Value):
    """
    Args:
        dim: channels of the plane.
        max_objects: maximum number of boxes; more are refused.
    """

    n_classes: Rows = 80
    dim: Width = 16
    max_objects: Length = 100
    names: tuple[str, ...] = ()


class LayoutPlane(Boxed, OnGrid):
    """A layout as a plane (B, dim, h, w) of the latents' size. The null is zeros, which is the empty layout too.

    A cell gets, from each box, the share of it that the box covers times a + b u + c v, where a, b and c are learned
    for the box's class and (u, v) is the cell's place inside the box, from -1 to 1; boxes add up. A denoiser then
    need not find boxes by attention, which takes many more steps to learn (layouts as painted regions: Sun & Wu 2019,
    arXiv:1908.07500). Best beside `layout-boxes`, reading the same input.
    """

    Config: ClassVar[type[LayoutPlaneConfig]] = LayoutPlaneConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example({"n_classes": 3, "dim": 5}, ([{**EXAMPLE, "label": i} for i in range(3)], [], [EXAMPLE, EXAMPLE])),
    )
    kind: SignalKind = "plane"

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim = self.config.dim
        self.paints = nn.Embedding(self.config.n_classes, 3 * self.dim)

    def forward(self, inputs: list[Layout]) -> Plane:
        """Raises InputError: always; a plane needs the latents' size, which `on_grid` gets."""
        raise InputError("no-grid", "a layout is painted on a grid of known size", fits="call on_grid(inputs, (h, w))")

    def on_grid(self, inputs: list[Layout], grid: tuple[int, int]) -> Plane:
        for layout in inputs:
            self.check(layout)
        weight = self.paints.weight
        plane = torch.zeros(len(inputs), self.dim, *grid, device=weight.device, dtype=weight.dtype)
        boxes = [box for layout in inputs for box in layout.objects]
        if not boxes:
            return Plane(plane)
        rows = torch.tensor([i for i, layout in enumerate(inputs) for _ in layout.objects], device=weight.device)
        return Plane(plane.index_add(0, rows, self._painted(boxes, grid).to(plane.dtype)))

    def _painted(self, boxes: list[Box], grid: tuple[int, int]) -> Tensor:
        """Each box alone: (N, dim, h, w)."""
        config, device = self.config, self.paints.weight.device
        numbers = [class_number(box.label, config.n_classes, config.names) for box in boxes]
        paints = self.paints(torch.tensor(numbers, device=device)).float().unflatten(1, (3, self.dim))
        corners = torch.tensor([box.rect.corners for box in boxes], dtype=torch.float32, device=device).clamp(0, 1)
        x, u = _covered(corners[:, 0], corners[:, 2], grid[1])
        y, v = _covered(corners[:, 1], corners[:, 3], grid[0])
        places = torch.stack([torch.ones_like(u)[:, None] + 0 * v[:, :, None], u[:, None] + 0 * v[:, :, None],
                              v[:, :, None] + 0 * u[:, None]], dim=1)  # fmt: skip
        return torch.einsum("nkd,nkhw,nh,nw->ndhw", paints, places, y, x)


def _covered(low: Tensor, high: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Along one axis, for N spans (N,) in [0, 1]: the covered share of each cell, and its place inside: (N, cells)."""
    start = torch.arange(cells, device=low.device, dtype=low.dtype) / cells
    share = (torch.minimum(high[:, None], start + 1 / cells) - torch.maximum(low[:, None], start)).clamp(min=0) * cells
    # a box may be so narrow that its edges coincide in float32
    middle, half = (low + high) / 2, ((high - low) / 2).clamp(min=1e-6)
    return share, ((start + 0.5 / cells - middle[:, None]) / half[:, None]).clamp(-1, 1)
