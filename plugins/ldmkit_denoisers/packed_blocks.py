"""The U-Net's blocks on packed weights: the same maths as the modules, in few operators and channels-last order.

Every block keeps the module that it replaces, uses its norms, and delegates to it if one of its ports is tapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import Frame, Port, PortedConv2d, PortedLinear, ports_in
from ldmkit_denoisers.attention import (
    KeysValues,
    SelfAttention2d,
    SpatialTransformer,
    TransformerBlock,
    attend,
    split_heads,
)
from ldmkit_denoisers.conditions import Projected
from ldmkit_denoisers.config import Activation
from ldmkit_denoisers.joint import JointAttention2d
from ldmkit_denoisers.packing import PackedConv, PackedLinear
from ldmkit_denoisers.ported import activate, resized
from ldmkit_denoisers.resnet import Downsample, ResBlock, Upsample

SMALL_MAP = 1024
"""Positions below which torch's GroupNorm uses a slow path for channels-last bfloat16; float32 is faster there."""


class Shifts(NamedTuple):
    """The time embedding (B, embedding), and its projections for all residual blocks (see `TimeProjections`)."""

    emb: Tensor
    rows: tuple[Tensor, ...]


class PackedResBlock:
    """A residual block, whose shift has index `place`; delegates to the module if its port is tapped."""

    def __init__(self, res: ResBlock, place: int) -> None:
        self._eager, self._ports, self._place = res, _ports(res), place
        self._norm_1, self._norm_2 = res.norm_1, res.norm_2
        self._resample, self._scale_shift = res.resample, res.scale_shift
        self._activation, self._scale = res.activation, res.output_scale
        self._conv_1 = PackedConv(res.conv_1)
        self._conv_2 = PackedConv(res.conv_2)
        self._skip = None if res.skip is None else PackedConv(res.skip)

    def __call__(self, x: Tensor, shifts: Shifts, frame: Frame, size: tuple[int, int] | None = None) -> Tensor:
        if _tapped(self._ports):
            return channels_last(self._eager(x, shifts.emb, size, frame))
        shift = shifts.rows[self._place]
        h = norm_act(self._norm_1, x, self._activation)
        if self._resample == "up":
            size = (2 * x.shape[2], 2 * x.shape[3]) if size is None else size
            h, x = resized(h, size), resized(x, size)
        elif self._resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        h = self._scaled(h, shift) if self._scale_shift else self._shifted(h, shift)
        h = self._conv_2.plus(h, x) if self._skip is None else self._conv_2.onto(h, self._skip(x))
        return h if self._scale == 1 else h.div_(self._scale)

    def _shifted(self, h: Tensor, shift: Tensor) -> Tensor:
        if shift.shape[0] == 1:  # one row for the whole batch: the shift is the convolution's bias
            h = self._conv_1.biased(h, shift[0])
        else:
            h = self._conv_1.biased(h, None).add_(shift[:, :, None, None])
        return norm_act(self._norm_2, h, self._activation)

    def _scaled(self, h: Tensor, shift: Tensor) -> Tensor:
        norm = self._norm_2
        scale, offset = shift.chunk(2, dim=1)
        h = self._conv_1(h)
        if shift.shape[0] == 1:
            bias = torch.addcmul(offset[0], norm.bias, scale[0])
            h = F.group_norm(h, norm.num_groups, norm.weight * scale[0], bias, norm.eps)
        else:
            h = F.group_norm(h, norm.num_groups, norm.weight, norm.bias, norm.eps)
            h.mul_(scale[:, :, None, None]).add_(offset[:, :, None, None])
        return activate(h, self._activation)


class TimeProjections:
    """Projections of the time embedding for all residual blocks, from one matrix product.

    The bias of each block's first convolution is added to its shift, and the 1 of `1 + scale` to its scale.
    """

    def __init__(self, blocks: Sequence[ResBlock]) -> None:
        biases = []
        for block in blocks:
            bias = block.emb.bias.detach().clone()
            half = bias.shape[0] // 2
            if block.scale_shift:
                bias[:half] += 1
            elif block.conv_1.bias is not None:
                bias += block.conv_1.bias
            biases.append(bias)
        self._sizes = [len(bias) for bias in biases]
        self._linear = PackedLinear(torch.cat([b.emb.weight for b in blocks]), torch.cat(biases))

    def __call__(self, emb: Tensor) -> Shifts:
        """(B, embedding) -> one (B, C or 2C) per block, in order."""
        return Shifts(emb, self._linear(emb).split(self._sizes, dim=1))


class PackedSelfAttention:
    """`SelfAttention2d`; delegates to the module if its ports are tapped."""

    def __init__(self, attn: SelfAttention2d) -> None:
        self._eager, self._norm, self._heads, self._upcast = attn, attn.norm, attn.heads, attn.upcast
        self._ports = _ports(attn)
        self._qkv, self._out = PackedLinear.of(attn.qkv), PackedLinear.of(attn.out)

    def __call__(self, x: Tensor, frame: Frame, projected: Projected) -> Tensor:
        if _tapped(self._ports):
            return channels_last(self._eager(x, frame))
        tokens = _tokens(x if self._norm is None else _norm(self._norm, x).to(x.dtype))
        y = _self_attend(self._qkv(tokens), self._heads, self._upcast)
        return _map(self._out.plus(y, _tokens(x)), x)


class PackedTransformerBlock:
    """`TransformerBlock`; delegates to the module if its ports are tapped."""

    def __init__(self, block: TransformerBlock) -> None:
        first, second = block.self_attn, block.cross_attn
        self._eager, self._index, self._ports = block, block.index, _ports(block)
        self._norms = (block.norm_1, block.norm_2, block.norm_3)
        self._heads, self._upcast = first.heads, first.upcast
        self._only_cross = block.only_cross
        self._first = PackedLinear.stacked((first.to_q,) if block.only_cross else (first.to_q, first.to_k, first.to_v))
        self._out_1, self._out_2 = PackedLinear.of(first.to_out), PackedLinear.of(second.to_out)
        self._crosses = block.context_dim is not None
        queried = (second.to_q,) if self._crosses else (second.to_q, second.to_k, second.to_v)
        self._query = PackedLinear.stacked(queried)
        value, gate = block.ff.proj.weight.chunk(2)
        value_bias, gate_bias = block.ff.proj.bias.chunk(2)
        self._value, self._gate = PackedLinear(value, value_bias), PackedLinear(gate, gate_bias)
        self._ff = PackedLinear.of(block.ff.out)

    def __call__(self, x: Tensor, frame: Frame, projected: Projected) -> Tensor:
        if _tapped(self._ports):
            return self._eager(x, frame, projected.kv, projected.mask)  # type: ignore[no-any-return]
        norm_1, norm_2, norm_3 = self._norms
        q = self._first(_layer_norm(norm_1, x))
        if self._only_cross:
            y = self._attend_to(q, projected.kv[self._index + 1], projected.mask)
        else:
            y = _self_attend(q, self._heads, self._upcast)
        x = self._out_1.plus(y, x)
        q = self._query(_layer_norm(norm_2, x))
        if self._crosses:
            y = self._attend_to(q, projected.kv[self._index], projected.mask)
        else:
            y = _self_attend(q, self._heads, self._upcast)
        x = self._out_2.plus(y, x)
        h = _layer_norm(norm_3, x)
        return self._ff.plus(self._value.times(h, self._gate.gelu(h)), x)

    def _attend_to(self, q: Tensor, kv: KeysValues, mask: Tensor | None) -> Tensor:
        return attend(split_heads(q, self._heads), *kv, mask, self._upcast)


class PackedJointAttention:
    """`JointAttention2d`; delegates to the module if its ports are tapped."""

    def __init__(self, attn: JointAttention2d) -> None:
        self._eager, self._norm, self._heads, self._ports = attn, attn.norm, attn.heads, _ports(attn)
        own = [layer for layer in (attn.to_q, attn.to_k, attn.to_v) if layer is not None]
        self._qkv, self._out = PackedLinear.stacked(own), PackedLinear.of(attn.to_out)

    def __call__(self, x: Tensor, frame: Frame, projected: Projected) -> Tensor:
        if _tapped(self._ports):
            return channels_last(self._eager(x, frame, projected.kv, projected.mask))
        parts = self._qkv(_tokens(_norm(self._norm, x).to(x.dtype))).split(x.shape[1], dim=-1)
        q, *own = (split_heads(part, self._heads) for part in parts)
        y = self._eager.attended(q, tuple(own) or None, projected.kv, projected.mask, frame)
        return _map(self._out.plus(y, _tokens(x)), x)


class PackedLayer:
    """A single packed layer; delegates to the module if its port is tapped."""

    def __init__(self, layer: PortedLinear | PortedConv2d) -> None:
        self._eager = layer
        self._packed = PackedLinear.of(layer) if isinstance(layer, PortedLinear) else PackedConv(layer)

    def __call__(self, x: Tensor, frame: Frame) -> Tensor:
        return self._eager(x, frame) if self._eager.port.taps else self._packed(x)


class PackedTransformer:
    """`SpatialTransformer`."""

    def __init__(self, attn: SpatialTransformer) -> None:
        self._eager, self._norm = attn, attn.norm
        self._ports = (attn.proj_in.port, attn.proj_out.port)
        self._proj_in, self._proj_out = PackedLinear.of(attn.proj_in), PackedLinear.of(attn.proj_out)
        self._blocks = [PackedTransformerBlock(block) for block in _blocks(attn)]

    def __call__(self, x: Tensor, frame: Frame, projected: Projected) -> Tensor:
        if _tapped(self._ports):
            return channels_last(self._eager(x, frame, projected.kv, projected.mask))
        tokens = self._proj_in(_tokens(_norm(self._norm, x).to(x.dtype)))
        for block in self._blocks:
            tokens = block(tokens, frame, projected)
        return _map(self._proj_out.plus(tokens, _tokens(x)), x)


class PackedResample:
    """`Downsample` or `Upsample`, with a packed convolution; delegates to the module if its port is tapped."""

    def __init__(self, module: Downsample | Upsample) -> None:
        self._eager, self._ports = module, _ports(module)
        self._up = isinstance(module, Upsample)
        self._pad = isinstance(module, Downsample) and not module.padding
        self._conv = None if module.conv is None else PackedConv(module.conv)

    def __call__(self, x: Tensor, shifts: Shifts, frame: Frame, size: tuple[int, int] | None = None) -> Tensor:
        if _tapped(self._ports):
            return channels_last(self._eager(x, shifts.emb, size, frame))
        if self._up:
            x = resized(x, (2 * x.shape[2], 2 * x.shape[3]) if size is None else size)
            return x if self._conv is None else self._conv(x)
        if self._conv is None:
            return F.avg_pool2d(x, 2)
        return self._conv(channels_last(F.pad(x, (0, 1, 0, 1))) if self._pad else x)


def _blocks(attn: SpatialTransformer) -> list[TransformerBlock]:
    return [block for block in attn.blocks if isinstance(block, TransformerBlock)]


def _ports(module: nn.Module) -> tuple[Port, ...]:
    return tuple(ports_in(module))


def _tapped(ports: tuple[Port, ...]) -> bool:
    return any(port.taps for port in ports)


def _norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """A GroupNorm; computed in float32 for small bfloat16 maps."""
    if x.dtype is torch.bfloat16 and x.shape[2] * x.shape[3] < SMALL_MAP:
        return F.group_norm(x.float(), norm.num_groups, norm.weight.float(), norm.bias.float(), norm.eps)
    return F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)


def norm_act(norm: nn.GroupNorm, x: Tensor, activation: Activation) -> Tensor:
    """The activation of a GroupNorm, in the map's dtype."""
    return activate(_norm(norm, x), activation).to(x.dtype)


def _layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _self_attend(qkv: Tensor, heads: int, upcast: bool) -> Tensor:
    """Attention of (B, L, 3C), q then k then v, each split into heads -> (B, L, C)."""
    b, length, c = qkv.shape
    q, k, v = qkv.view(b, length, 3, heads, c // (3 * heads)).permute(2, 0, 3, 1, 4).unbind(0)
    return attend(q, k, v, None, upcast)


def _tokens(x: Tensor) -> Tensor:
    """A channels-last map (B, C, h, w) as tokens (B, h*w, C), without a copy."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _map(tokens: Tensor, like: Tensor) -> Tensor:
    b, _, h, w = like.shape
    return tokens.view(b, h, w, tokens.shape[2]).permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """The map in channels-last order."""
    return x.contiguous(memory_format=torch.channels_last)
