"""Group norms with statistics of the whole picture, while it is processed tile by tile.

An ordinary group norm would use statistics of a single tile. Here norms are replaced, in a copy of the module that
shares its tensors, by norms with statistics of all tiles. At a norm whose statistics are incomplete, a tile adds its
part and stops; after all tiles, the statistics are complete. So there is one partial pass over the tiles per norm, and
one complete pass. The result equals that without tiles, up to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Span = tuple[int, int]
"""(first, last + 1), in pixels."""

M = TypeVar("M", bound=nn.Module)


@dataclass
class Place:
    """The current tile: the pixels that it covers, and those that it owns (each pixel is owned by one tile)."""

    rows: Span = (0, 0)
    columns: Span = (0, 0)
    owned_rows: Span = (0, 0)
    owned_columns: Span = (0, 0)

    def owned(self, x: Tensor) -> Tensor:
        """The owned part of a map (B, C, h, w) of the tile, at any resolution."""
        down = (self.rows[1] - self.rows[0]) // x.shape[-2]
        across = (self.columns[1] - self.columns[0]) // x.shape[-1]
        top, bottom = ((side - self.rows[0]) // down for side in self.owned_rows)
        left, right = ((side - self.columns[0]) // across for side in self.owned_columns)
        return x[..., top:bottom, left:right]


class Unknown(Exception):
    """A tile reached a norm whose statistics are incomplete."""

    def __init__(self, norm: WholeNorm):
        super().__init__("a norm without its statistics")
        self.norm = norm


class WholeNorm(nn.Module):
    """Group norm with mean and variance over all tiles, merged from those of owned parts (Chan et al. 1979)."""

    def __init__(self, norm: nn.GroupNorm, place: Place):
        super().__init__()
        self.norm, self.place = norm, place
        self.count = 0
        self.mean = self.squares = torch.zeros(())
        self.known = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.known:
            self._gather(self.place.owned(x))
            raise Unknown(self)
        batch, channels = x.shape[:2]
        each = channels // self.norm.num_groups
        mean, variance = (v.repeat_interleave(each, 1).flatten() for v in (self.mean, self.squares / self.count))
        affine = (self.norm.weight, self.norm.bias)
        weight, bias = (None if v is None else v.to(mean.dtype).repeat(batch) for v in affine)
        rows = x.reshape(1, -1, *x.shape[-2:])
        return F.batch_norm(rows, mean, variance, weight, bias, False, 0.0, self.norm.eps).view_as(x)

    def _gather(self, x: Tensor) -> None:
        groups = x.unflatten(1, (self.norm.num_groups, -1))
        wide = torch.promote_types(x.dtype, torch.float32)
        found = [torch.var_mean(g.to(wide), (1, 2, 3), correction=0) for g in groups.unbind(1)]
        variance, mean = (torch.stack(values, 1) for values in zip(*found, strict=True))
        count = groups[0, 0].numel()
        total, moved = self.count + count, mean - self.mean
        self.squares = self.squares + variance * count + moved.square() * (self.count * count / total)
        self.mean = self.mean + moved * (count / total)
        self.count = total


def passes(over_tiles: Callable[[], Tensor]) -> Tensor:
    """Pass over all tiles until all statistics are complete. `over_tiles` raises `Unknown` after the last tile."""
    while True:
        try:
            return over_tiles()
        except Unknown as waiting:
            waiting.norm.known = True


def twin(module: M, place: Place) -> M:
    """A copy of a module with the same tensors, whose norms gather statistics over tiles."""
    shared = {id(t): t for t in chain(module.parameters(), module.buffers())}
    other = copy.deepcopy(module, shared)
    _exchange(other, place)
    return other


def _exchange(module: nn.Module, place: Place) -> None:
    for name, child in module.named_children():
        _exchange(child, place)
        if type(child) is nn.GroupNorm:
            setattr(module, name, WholeNorm(child, place))


def has_norms(module: nn.Module) -> bool:
    """Whether a module has group norms at all."""
    return any(type(one) is nn.GroupNorm for one in module.modules())
