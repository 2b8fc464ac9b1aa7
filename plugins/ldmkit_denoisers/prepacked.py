"""The plan "prepacked": the U-Net's forward on the CPU with few operators, on weights packed for oneDNN.

The same maths as the eager network with sums in another order: float32 results agree to 1e-5 of the largest value.
Maps are in channels-last order, so that attention reads them as tokens without a copy; residual additions, gates and
activations are fused into the preceding convolution or linear layer; the projections of the time embedding for all
residual blocks are one matrix product.

Memory: the packed weights come on top of the module's own, which are kept for `state_dict` and for eager execution.
Memory-mapped weights take no extra memory: their pages belong to the file, and the system drops them when it needs
memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ldmkit import CompositionError, Context, Frame, check_fresh, fingerprint
from ldmkit_denoisers.attention import SelfAttention2d, SpatialTransformer
from ldmkit_denoisers.conditions import Projected, UNetContext
from ldmkit_denoisers.embeddings import EmbeddingMLP
from ldmkit_denoisers.encoder import Middle, UNetLevel, WayDown, activated
from ldmkit_denoisers.joint import JointAttention2d
from ldmkit_denoisers.packed_blocks import (
    PackedJointAttention,
    PackedLayer,
    PackedResample,
    PackedResBlock,
    PackedSelfAttention,
    PackedTransformer,
    Shifts,
    TimeProjections,
    channels_last,
    norm_act,
)
from ldmkit_denoisers.packing import check_available
from ldmkit_denoisers.ported import activate, passed
from ldmkit_denoisers.resnet import ResBlock
from ldmkit_denoisers.unet import UNet, with_plane

PackedAttention = PackedSelfAttention | PackedJointAttention | PackedTransformer


class PrepackedUNet:
    """Called like the eager U-Net, (x, t, context, sigma) -> F; threads may share it.

    Taps at the U-Net's ports run as usual, on maps in channels-last order; a block whose inner ports are tapped runs
    eagerly. If x requires a gradient, or the network trains with dropout, everything runs eagerly.

    Args:
        unet: on the CPU, in float32 or bfloat16. Its weights must not change afterwards; a run that starts with
            changed weights is refused.

    Raises:
        CompositionError: `plan-unavailable`, from here; `stale-plan`, from a call.
    """

    def __init__(self, unet: UNet) -> None:
        check_available(unet.device, unet.dtype)
        self._unet, self._packed_from = unet, fingerprint(unet)
        self._res_blocks: list[ResBlock] = []
        with torch.no_grad():
            self._conv_in = PackedLayer(unet.conv_in)
            self._conv_out = PackedLayer(unet.conv_out)
            self._time = _packed_mlp(unet.time_embed)
            self._down = [_PackedStage(self, stage) for stage in unet.down]
            self._mid = None if unet.mid is None else _PackedStage(self, unet.mid)
            self._up = [_PackedStage(self, stage) for stage in reversed(unet.up)]
            self._projections = TimeProjections(self._res_blocks)

    def __call__(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        unet = self._unet
        if (torch.is_grad_enabled() and x.requires_grad) or (unet.training and unet.config.dropout):
            return unet(x, t, context, sigma)  # type: ignore[no-any-return]
        if not isinstance(context, UNetContext) or context.projected is None:
            raise CompositionError("foreign-context", "the context was not prepared by a U-Net")
        if context.plan is not self:
            check_fresh(unet, self._packed_from, "prepacked")
            context.plan = self
        with torch.no_grad():
            return self._forward(x, t, context, context.projected, Frame(x, t, context, sigma))

    def add_res(self, block: nn.Module) -> int:
        """Register a residual block for the joint time projection; returns its index."""
        assert isinstance(block, ResBlock)
        self._res_blocks.append(block)
        return len(self._res_blocks) - 1

    def _forward(self, x: Tensor, t: Tensor, context: UNetContext, projected: Projected, frame: Frame) -> Tensor:
        unet = self._unet
        h = x.to(unet.conv_in.weight.dtype)
        if context.plane is not None:
            h = with_plane(h, context.plane)
        h = self._conv_in(channels_last(_tapped(unet.input_port, h, frame)), frame)
        shifts = self._projections(self._embed(t, projected, frame))
        way = self._way_down(WayDown(h, frame, unet.gates), shifts, frame, projected)
        if way.cut is None:
            way.h = _tapped(unet.mid_port, way.h, frame, way.skips[-1])
        h = self._way_up(way, shifts, frame, projected)
        return self._conv_out(norm_act(unet.norm_out, h, unet.config.activation), frame).contiguous()

    def _way_down(self, way: WayDown, shifts: Shifts, frame: Frame, projected: Projected) -> WayDown:
        h = way.h
        if way.keep(h):
            return way
        for stage in self._down:
            for i in range(len(stage.res)):
                source, h = h, stage.block(i, h, shifts, frame, projected)
                h = _tapped(stage.block_ports[i], h, frame, source)
                if i == len(stage.res) - 1:
                    h = _tapped(stage.port, h, frame)
                if way.keep(h):
                    return way
            if stage.resample is not None:
                h = _tapped(stage.resample_port, stage.resampled(h, shifts, frame), frame, h)
                if way.keep(h):
                    return way
        if self._mid is not None:
            for i in range(len(self._mid.res)):
                h = self._mid.block(i, h, shifts, frame, projected)
        way.h = h
        return way

    def _way_up(self, way: WayDown, shifts: Shifts, frame: Frame, projected: Projected) -> Tensor:
        ports = self._unet.skip_ports
        h, skips, depth, place = way.h, way.skips, len(way.skips), len(ports)
        for stage in self._up:
            for i in range(len(stage.res)):
                place -= 1
                if place >= depth:  # the way down ended earlier
                    continue
                h = channels_last(way.joined(place, h))
                skip = _tapped(ports[place], skips.pop(), frame)
                h = stage.block(i, channels_last(torch.cat([h, skip], dim=1)), shifts, frame, projected)
            if stage.resample is not None and place < depth:
                h = stage.resampled(h, shifts, frame, (skips[-1].shape[2], skips[-1].shape[3]))
        return h

    def _embed(self, t: Tensor, projected: Projected, frame: Frame) -> Tensor:
        """The activated time embedding: one row if the caller's times are a single expanded number, else one each."""
        unet, vector = self._unet.unet, projected.vector
        if t.shape[0] > 1 and t.stride(0) == 0:
            t = t[:1]
        inner, outer = self._time
        code = self._unet.time_code(t, projected)
        hidden = activate(inner(code.to(self._unet.conv_in.weight.dtype), frame), unet.activation)
        emb = outer(hidden, frame)
        return activated(unet, emb if vector is None else emb + vector)


class _PackedStage:
    """A `Stage` or `Middle`."""

    def __init__(self, net: PrepackedUNet, stage: nn.Module) -> None:
        assert isinstance(stage, (UNetLevel, Middle))
        self.res: list[PackedResBlock] = []
        self.attn: list[PackedAttention | None] = []
        attentions: list[nn.Module | None] = list(stage.attn) if isinstance(stage, UNetLevel) else [stage.attn]
        self.resample: PackedResBlock | PackedResample | None = None
        for i, block in enumerate(stage.res):
            assert isinstance(block, ResBlock)
            self.res.append(PackedResBlock(block, net.add_res(block)))
            self.attn.append(_packed_attention(attentions[i] if i < len(attentions) else None))
        last = stage.resample if isinstance(stage, UNetLevel) else None
        self.port = stage.port if isinstance(stage, UNetLevel) else None
        self.block_ports: list[Any] = list(stage.block_ports) if isinstance(stage, UNetLevel) else []
        self.resample_port = stage.resample_port if isinstance(stage, UNetLevel) else None
        if isinstance(last, ResBlock):
            self.resample = PackedResBlock(last, net.add_res(last))
        elif last is not None:
            self.resample = PackedResample(last)

    def block(self, i: int, h: Tensor, shifts: Shifts, frame: Frame, projected: Projected) -> Tensor:
        """Residual block i and its attention."""
        attn = self.attn[i]
        h = self.res[i](h, shifts, frame)
        return h if attn is None else attn(h, frame, projected)

    def resampled(self, h: Tensor, shifts: Shifts, frame: Frame, size: tuple[int, int] | None = None) -> Tensor:
        """The map at the next level's size."""
        assert self.resample is not None
        return self.resample(h, shifts, frame, size)


def _packed_attention(attn: nn.Module | None) -> PackedAttention | None:
    if isinstance(attn, SelfAttention2d):
        return PackedSelfAttention(attn)
    if isinstance(attn, JointAttention2d):
        return PackedJointAttention(attn)
    return PackedTransformer(attn) if isinstance(attn, SpatialTransformer) else None


def _packed_mlp(mlp: EmbeddingMLP) -> tuple[PackedLayer, PackedLayer]:
    return PackedLayer(mlp.inner), PackedLayer(mlp.outer)


def _tapped(port: Any, value: Tensor, frame: Frame, source: Tensor | None = None) -> Tensor:
    if port is None or not port.taps:
        return value
    return channels_last(port(value, frame) if source is None else passed(port, value, source, frame))
