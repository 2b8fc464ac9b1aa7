"""The first half of the U-Net (input, embeddings, way down, middle), which ControlNet copies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldmkit import Frame, Port, PortedConv2d, layer_ports
from ldmkit_denoisers.attention import SelfAttention2d, SpatialTransformer, TransformerBlock
from ldmkit_denoisers.conditions import Conditioned, Projected
from ldmkit_denoisers.config import LevelPlan, UNetConfig, down_levels, mid_level
from ldmkit_denoisers.embeddings import EmbeddingMLP, TimeTable, sinusoidal
from ldmkit_denoisers.joint import JointAttention2d
from ldmkit_denoisers.ported import ACTIVATIONS, passed
from ldmkit_denoisers.resnet import Downsample, ResBlock, Upsample


class UNetLevel(nn.Module):
    """One level of one side: residual blocks, their attentions, and the resampling to the next level.

    On the way down `block_ports` get the map after each block and its attention (`down.<level>.<block>`), `port` the
    level's last map, before it is kept as a skip and resampled (`down.<level>`), and `resample_port` the resampled map
    (`down.<level>.resample`).
    """

    def __init__(self, config: UNetConfig, plan: LevelPlan, way: str, index: int):
        super().__init__()
        self.res = nn.ModuleList(res_block(config, plan, inputs) for inputs in plan.inputs)
        steps, count = crossings_each(plan), 0 if plan.attention == "none" else len(plan.inputs)
        self.attn = nn.ModuleList(attention(config, plan, index + i * steps) for i in range(count))
        self.resample = _resampler(config, plan, way)
        self.port, self.resample_port = Port(plan.width), Port(plan.width)
        self.block_ports = nn.ModuleList(Port(plan.width) for _ in (plan.inputs if way == "down" else ()))


class Middle(nn.Module):
    """Residual block, attention, residual block; or a single residual block."""

    def __init__(self, config: UNetConfig, plan: LevelPlan, index: int):
        super().__init__()
        self.res = nn.ModuleList(res_block(config, plan, inputs) for inputs in plan.inputs)
        groups = config.norm_groups if config.mid_groups is None else config.mid_groups
        self.attn = attention(config, plan, index, groups) if plan.attention != "none" else None


class WayDown:
    """The maps that the way down and the middle leave for the way up.

    If the gate of a skip has a stored value, nothing after that skip is computed: `h` is that value, and `cut` the
    skip's index.

    Args:
        h: the map that the way up begins with, in the end the middle's output.
        gates: one per skip, or none.
    """

    def __init__(self, h: Tensor, frame: Frame, gates: Sequence[nn.Module] = ()) -> None:
        self.h = h
        self.skips: list[Tensor] = []
        self.cut: int | None = None
        self._frame, self._gates = frame, gates

    def keep(self, skip: Tensor) -> bool:
        """Keep a map for the way up; returns True if nothing deeper is to be computed."""
        place = len(self.skips)
        self.skips.append(skip)
        if self._gates:
            gate: Any = self._gates[place]
            if gate.taps and (stored := gate.skip(self._frame)) is not None:
                self.h, self.cut = stored, place
                return True
        return False

    def joined(self, place: int, h: Tensor) -> Tensor:
        """The map that is joined with skip `place`, past that skip's gate."""
        gate: Any = self._gates[place]
        return gate(h, self._frame) if gate.taps and place != self.cut else h


class Encoder(Conditioned):
    """Mixin for a part with a U-Net's first half; `build_encoder` makes its modules, under the U-Net's names.

    With `gradient_checkpointing` set, training recomputes every block in the backward pass instead of keeping it.
    """

    gradient_checkpointing: bool = False
    unet: UNetConfig
    cross_count: int

    def build_encoder(self, config: UNetConfig) -> None:
        """Make the modules: conv_in, time_table, time_embed, vector_embed, down, mid."""
        self.unet = config
        self.conv_in = PortedConv2d(config.in_channels or config.channels, config.widths[0], 3, padding=1)
        self.time_table = TimeTable(config.time_table, config.code) if config.time_table else None
        self.time_embed = EmbeddingMLP(config.code, config.embedding, config.activation)
        self.build_conditions(config)
        count, stages = 0, []
        for plan in down_levels(config):
            stages.append(UNetLevel(config, plan, "down", count))
            count += crossings(plan)
        self.down = nn.ModuleList(stages)
        middle = mid_level(config)
        self.mid = Middle(config, middle, count) if middle.inputs else None
        self.cross_count = count + (crossings_each(middle) if middle.inputs else 0)

    def embed(self, t: Tensor, projected: Projected, frame: Frame | None = None) -> Tensor:
        """The time embedding with the vector added, activated, (B, embedding): what every residual block reads."""
        emb = self.time_embed(self.time_code(t, projected).to(self.time_embed.inner.weight.dtype), frame)
        return activated(self.unet, emb if projected.vector is None else emb + projected.vector)

    def time_code(self, t: Tensor, projected: Projected) -> Tensor:
        """The code of times (B,) that the time embedding reads, (B, config.code)."""
        if self.time_table is not None:
            return self.time_table(t)  # type: ignore[no-any-return]
        return sinusoidal(t, projected.freqs, self.unet.code, self.unet.cos_first)

    def encode(
        self, h: Tensor, emb: Tensor, frame: Frame, projected: Projected, gates: Sequence[nn.Module] = ()
    ) -> WayDown:
        """From the output of `conv_in` to that of the middle, with the skip maps for the way up, h first.

        `gates`, one per skip, may end it early (see `WayDown`).
        """
        way = WayDown(h, frame, gates)
        if way.keep(h):
            return way
        for stage in self.down:
            last = len(stage.res) - 1
            for i, res in enumerate(stage.res):
                source, h = h, self.block(res, stage.attn[i] if stage.attn else None, h, emb, frame, projected)
                if stage.block_ports[i].taps:
                    h = passed(stage.block_ports[i], h, source, frame)
                if i == last and stage.port.taps:
                    h = stage.port(h, frame)
                if way.keep(h):
                    return way
            if stage.resample is not None:
                source, h = h, stage.resample(h, emb, frame=frame)
                if stage.resample_port.taps:
                    h = passed(stage.resample_port, h, source, frame)
                if way.keep(h):
                    return way
        if self.mid is not None:
            for i, res in enumerate(self.mid.res):
                h = self.block(res, None if i else self.mid.attn, h, emb, frame, projected)
        way.h = h
        return way

    def block(
        self, res: nn.Module, attn: nn.Module | None, h: Tensor, emb: Tensor, frame: Frame, projected: Projected
    ) -> Tensor:
        """A residual block and its attention."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(_block, res, attn, h, emb, frame, projected, use_reentrant=False)  # type: ignore[no-any-return]
        return _block(res, attn, h, emb, frame, projected)


def inner_ports(module: nn.Module) -> dict[str, Port]:
    """Ports of the attentions and layers below a module, by the path of the layer they belong to."""
    ports = layer_ports(module)
    for path, part in module.named_modules():
        if isinstance(part, SelfAttention2d):
            ports[f"attn.{path}"] = part.attn_port
            ports[f"self.{path}"] = part.port
        elif isinstance(part, JointAttention2d):
            ports[f"joint.{path}"] = part.joint_port
            ports[f"self.{path}"] = part.port
        elif isinstance(part, TransformerBlock):
            if not part.only_cross:
                ports[f"attn.{path}"] = part.attn_port
            ports[f"self.{path}"] = part.self_port
            ports[f"block.{path}"] = part.block_port
            ports[f"cross.{path}"] = part.cross_port
    return ports


def level_ports(stages: Iterable[nn.Module]) -> dict[str, Port]:
    """Ports of the way down: `down.<level>`, `down.<level>.<block>`, `down.<level>.resample` if the level resamples."""
    ports: dict[str, Port] = {}
    for level, stage in enumerate(stages):
        assert isinstance(stage, UNetLevel)
        ports[f"down.{level}"] = stage.port
        ports |= {f"down.{level}.{i}": port for i, port in enumerate(stage.block_ports)}
        if stage.resample is not None:
            ports[f"down.{level}.resample"] = stage.resample_port
    return ports


def res_block(config: UNetConfig, plan: LevelPlan, inputs: int, resample: Any = "none") -> ResBlock:
    """A residual block of a level, with the U-Net's options."""
    return ResBlock(
        inputs,
        plan.width,
        config.embedding,
        groups=config.norm_groups,
        eps=config.norm_eps,
        dropout=config.dropout,
        scale_shift=config.scale_shift,
        resample=resample,
        activation=config.activation,
        output_scale=plan.output_scale,
    )


def attention(config: UNetConfig, plan: LevelPlan, index: int, groups: int | None = None) -> nn.Module:
    """The attention of a level, of any kind."""
    groups = config.norm_groups if groups is None else groups
    if plan.attention == "self":
        return SelfAttention2d(plan.width, plan.heads, groups, config.norm_eps, config.upcast_attention)
    if plan.attention == "joint":
        return JointAttention2d(
            plan.width,
            plan.heads,
            config.context_dim or 0,
            groups=config.norm_groups,
            context_groups=config.context_groups,
            only_cross=plan.only_cross,
            index=index,
        )
    return SpatialTransformer(
        plan.width,
        plan.heads,
        depth=plan.depth,
        context=config.context_dim,
        groups=config.norm_groups,
        upcast=config.upcast_attention,
        index=index,
        only_cross=plan.only_cross,
    )


def _block(
    res: nn.Module, attn: nn.Module | None, h: Tensor, emb: Tensor, frame: Frame, projected: Projected
) -> Tensor:
    h = res(h, emb, frame=frame)
    if attn is None:
        return h
    if isinstance(attn, SelfAttention2d):
        return attn(h, frame)  # type: ignore[no-any-return]
    return attn(h, frame, projected.kv, projected.mask)  # type: ignore[no-any-return]


def _resampler(config: UNetConfig, plan: LevelPlan, way: str) -> nn.Module | None:
    if plan.resample == "none":
        return None
    if plan.resample == "residual":
        return res_block(config, plan, plan.width, way)
    if way == "down":
        return Downsample(plan.width, plan.resample == "conv", config.down_padding)
    return Upsample(plan.width, plan.resample == "conv")


def crossings(plan: LevelPlan) -> int:
    """Pairs of keys and values of the context that the attentions of a level read."""
    return crossings_each(plan) * len(plan.inputs)


def crossings_each(plan: LevelPlan) -> int:
    """Pairs of keys and values of the context that one attention of a level reads."""
    if plan.attention == "cross":
        return plan.depth * (1 + plan.only_cross)
    return int(plan.attention == "joint")


def activated(config: UNetConfig, emb: Tensor) -> Tensor:
    """The sum of the embeddings as residual blocks read it."""
    for name in (config.activation,) if config.time_activations is None else config.time_activations:
        emb = ACTIVATIONS[name](emb)
    return emb
