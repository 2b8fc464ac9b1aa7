"""Layers that look at a whole picture, made to do so while it is run tile by tile.

A group norm, or an attention, of one tile sees that tile only. Here the layers are exchanged, in a twin of the codec
that shares its tensors, for ones that use what was gathered over all tiles of the pass before. The first layer of them
gathers right values in the first pass, the next in the second, ...: after as many passes as there are such layers, and
one more, all are right. What matters is right before, so passes end when nothing moves any more.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit_codecs.autoencoder import Attention, LinearAttention
from ldmkit_codecs.tiles import Axis

SETTLED = 1e-2
"""Largest change of a group's mean (in deviations) or deviation (relative) from one pass to the next."""


@dataclass
class Place:
    """The tile that runs now: what it covers, and what of that it owns (each place is owned once), in pixels."""

    rows: Axis
    columns: Axis
    row: int = 0
    column: int = 0
    gathering: list[Gathered] = field(default_factory=list)

    def cut(self, height: int, width: int) -> tuple[slice, slice, slice, slice]:
        """For a map (height, width) of the tile: its owned rows and columns, and where they are in the whole map."""
        down = self.rows.owned(self.row, self.rows.size // height)
        across = self.columns.owned(self.column, self.columns.size // width)
        return *down, *across

    def whole(self, height: int, width: int) -> tuple[int, int]:
        """Size of the whole picture's map."""
        return self.rows.length * height // self.rows.size, self.columns.length * width // self.columns.size


class Gathered(nn.Module):
    """A layer with a memory of the last pass."""

    def __init__(self, layer: nn.Module, place: Place):
        super().__init__()
        self.layer, self.place = layer, place
        place.gathering.append(self)

    def turn(self) -> float:
        """End a pass; how much its values moved."""
        return 0.0


class WholeNorm(Gathered):
    """Group norm by mean and variance over all tiles, gathered by merging those of owned parts (Chan et al. 1979)."""

    layer: nn.GroupNorm

    def __init__(self, layer: nn.GroupNorm, place: Place):
        super().__init__(layer, place)
        self.count = 0
        self.mean = self.squares = torch.zeros(())
        self.used: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        top, _, left, _ = self.place.cut(*x.shape[-2:])
        self._gather(x[..., top, left])
        norm = self.layer
        if self.used is None:
            return norm(x)
        batch, channels = x.shape[:2]
        each = channels // norm.num_groups
        mean, variance = (value.repeat_interleave(each, 1).flatten() for value in self.used)
        weight, bias = (None if v is None else v.float().repeat(batch) for v in (norm.weight, norm.bias))
        rows = x.reshape(1, -1, *x.shape[-2:])
        return F.batch_norm(rows, mean, variance, weight, bias, False, 0.0, norm.eps).view_as(x)

    def _gather(self, x: Tensor) -> None:
        groups = x.unflatten(1, (self.layer.num_groups, -1))
        found = [torch.var_mean(g.float(), (1, 2, 3), correction=0) for g in groups.unbind(1)]
        variance, mean = (torch.stack(values, 1) for values in zip(*found, strict=True))
        count = groups[0, 0].numel()
        total, moved = self.count + count, mean - self.mean
        self.squares = self.squares + variance * count + moved.square() * (self.count * count / total)
        self.mean = self.mean + moved * (count / total)
        self.count = total

    def turn(self) -> float:
        if not self.count:
            return 0.0  # of the other half of the codec
        now, before = (self.mean, self.squares / self.count), self.used
        self.used, self.count = now, 0
        self.mean = self.squares = torch.zeros(())
        if before is None:
            return float("inf")
        deviation = (before[1] + self.layer.eps).sqrt()
        ratio = (now[1] + self.layer.eps).sqrt() / deviation
        return max(float(((now[0] - before[0]) / deviation).abs().max()), float((ratio - 1).abs().max()))


class WholeAttention(Gathered):
    """Attention to all of the picture: its keys and values, each tile's as it was when it last ran."""

    layer: Attention

    def __init__(self, layer: Attention, place: Place):
        super().__init__(layer, place)
        self.memory: Tensor | None = None
        self.ready = False

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer
        height, width = x.shape[-2:]
        tokens = a.norm(x).flatten(2).transpose(1, 2)
        both = torch.stack([a.k(tokens), a.v(tokens)], 1)  # (B, 2, hw, c)
        if self.memory is None:
            self.memory = both.new_zeros(*both.shape[:2], *self.place.whole(height, width), both.shape[-1])
        top, y, left, across = self.place.cut(height, width)
        self.memory[:, :, y, across] = both.unflatten(2, (height, width))[:, :, top, left]
        k, v = (self.memory.flatten(2, 3) if self.ready else both).unbind(1)
        h = F.scaled_dot_product_attention(a.q(tokens)[:, None], k[:, None], v[:, None])
        return x + a.out(h[:, 0]).transpose(1, 2).reshape(x.shape)

    def turn(self) -> float:
        self.ready = True
        return 0.0


class WholeLinear(Gathered):
    """Linear attention: its context (c, c) summed over all tiles, keys' exponentials by one maximum."""

    layer: LinearAttention

    def __init__(self, layer: LinearAttention, place: Place):
        super().__init__(layer, place)
        self.sums: tuple[Tensor, Tensor, Tensor] | None = None
        self.context: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer
        q, k, v = a.qkv(x.flatten(2).transpose(1, 2)).chunk(3, dim=2)
        top, _, left, _ = self.place.cut(*x.shape[-2:])
        mine, theirs = (t.unflatten(1, x.shape[-2:])[:, top, left].flatten(1, 2).float() for t in (k, v))
        most = mine.amax(1, keepdim=True)
        before = self.sums
        if before is not None:
            most = torch.maximum(most, before[0])
        scaled = (mine - most).exp()
        share, product = scaled.sum(1, keepdim=True), scaled.transpose(1, 2) @ theirs
        if before is not None:
            fade = (before[0] - most).exp()
            share, product = share + before[1] * fade, product + before[2] * fade.transpose(1, 2)
        self.sums = (most, share, product)
        context = k.softmax(dim=1).transpose(1, 2) @ v if self.context is None else self.context.to(v.dtype)
        return a.out(q @ context).transpose(1, 2).reshape(x.shape)

    def turn(self) -> float:
        if self.sums is None:
            return 0.0
        self.context = self.sums[2] / self.sums[1].transpose(1, 2)
        self.sums = None
        return 0.0


_WHOLE: dict[type[nn.Module], Callable[..., Gathered]] = {
    nn.GroupNorm: WholeNorm,
    Attention: WholeAttention,
    LinearAttention: WholeLinear,
}


def twin(codec: nn.Module, place: Place) -> nn.Module:
    """The same codec on the same tensors, whose layers that look at a whole picture gather over tiles."""
    shared = {id(t): t for t in chain(codec.parameters(), codec.buffers())}
    other = copy.deepcopy(codec, shared)
    _exchange(other, place)
    return other


def _exchange(module: nn.Module, place: Place) -> None:
    for name, child in module.named_children():
        _exchange(child, place)
        if (whole := _WHOLE.get(type(child))) is not None:
            setattr(module, name, whole(child, place))


def looks_far(codec: nn.Module) -> bool:
    """Whether a codec has such layers at all."""
    return any(type(module) in _WHOLE for module in codec.modules())
