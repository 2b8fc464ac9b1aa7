"""The first half of the U-Net (input, embeddings, way down, middle), which ControlNet copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldmkit import (
    CompositionError,
    Context,
    Frame,
    Plane,
    Port,
    PortedConv2d,
    PortedLinear,
    Signal,
    Slot,
    Tokens,
    Vector,
    layer_ports,
    ports_in,
)
from ldmkit_denoisers.attention import KeysValues, SelfAttention2d, SpatialTransformer, TransformerBlock
from ldmkit_denoisers.config import LevelPlan, UNetConfig, down_levels, mid_level
from ldmkit_denoisers.embeddings import ClassTable, EmbeddingMLP, TimeLikeMLP, frequencies, sinusoidal
from ldmkit_denoisers.ported import passed
from ldmkit_denoisers.resnet import Downsample, ResBlock, Upsample


@dataclass
class Projected:
    """Projections of the conditions, computed once per run.

    `kv` are keys and values of every cross-attention in the order of the network, `mask` (B,1,1,L) bool or None,
    `vector` (B, embedding) or None, `freqs` the timestep code's frequencies.
    """

    kv: tuple[KeysValues, ...]
    mask: Tensor | None
    vector: Tensor | None
    freqs: Tensor


@dataclass
class UNetContext(Context):
    """The context of a U-Net: its own projections, and the plane (B, C, h, w) that is concatenated to x.

    `plan` is the execution plan that has used this context, for what a plan checks or computes once per run.
    """

    projected: Projected | None = None
    plane: Tensor | None = None
    plan: Any = None


class UNetLevel(nn.Module):
    """One level of one side: residual blocks, their attentions, and the resampling to the next level.

    On the way down `block_ports` get the map after each block and its attention (`down.<level>.<block>`), `port` the
    level's last map, before it is kept as a skip and resampled (`down.<level>`), and `resample_port` the resampled map
    (`down.<level>.resample`).
    """

    def __init__(self, config: UNetConfig, plan: LevelPlan, way: str, index: int):
        super().__init__()
        self.res = nn.ModuleList(res_block(config, inputs, plan.width) for inputs in plan.inputs)
        kind = plan.attention
        steps = plan.depth if kind == "cross" else 0
        self.attn = nn.ModuleList(
            attention(config, plan, index + i * steps) for i in range(len(plan.inputs)) if kind != "none"
        )
        self.resample = _resampler(config, plan, way)
        self.port, self.resample_port = Port(plan.width), Port(plan.width)
        self.block_ports = nn.ModuleList(Port(plan.width) for _ in (plan.inputs if way == "down" else ()))


class Middle(nn.Module):
    """Residual block, attention, residual block; or a single residual block."""

    def __init__(self, config: UNetConfig, plan: LevelPlan, index: int):
        super().__init__()
        self.res = nn.ModuleList(res_block(config, inputs, plan.width) for inputs in plan.inputs)
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


class Encoder(nn.Module):
    """Mixin for a part with a U-Net's first half; `build_encoder` makes its modules, under the U-Net's names.

    With `gradient_checkpointing` set, training recomputes every block in the backward pass instead of keeping it.
    """

    gradient_checkpointing: bool = False
    unet: UNetConfig
    cross_count: int

    def build_encoder(self, config: UNetConfig) -> None:
        """Make the modules: conv_in, time_embed, vector_embed, down, mid."""
        self.unet = config
        self.conv_in = PortedConv2d(config.in_channels or config.channels, config.widths[0], 3, padding=1)
        self.time_embed = EmbeddingMLP(config.code, config.embedding)
        self.vector_embed = _vector_embed(config)
        count, stages = 0, []
        for plan in down_levels(config):
            stages.append(UNetLevel(config, plan, "down", count))
            count += _crossings(plan, len(plan.inputs))
        self.down = nn.ModuleList(stages)
        middle = mid_level(config)
        self.mid = Middle(config, middle, count) if middle.inputs else None
        self.cross_count = count + _crossings(middle, 1)

    def project(self, signals: Mapping[str, Signal], context: Context) -> Projected:
        """Keys, values and vector of the conditions.

        Raises:
            CompositionError: a required condition is missing.
        """
        tokens = self._signal(signals, "context", Tokens) if takes_context(self.unet) else None
        vector = self._signal(signals, "vector", Vector) if self.unet.vector != "none" else None
        kv: tuple[KeysValues, ...] = ()
        mask = None
        if tokens is not None:
            value = tokens.value.to(self.conv_in.weight.dtype)
            frame = Frame(value, value.new_zeros(value.shape[0]), context)
            kv = tuple(_contiguous(block.cross_attn.keys_values(value, frame)) for block in self._crossing())
            mask = None if tokens.mask is None else tokens.mask[:, None, None, :]
        return Projected(
            kv,
            mask,
            None if vector is None else self._embed_vector(vector.value, context),
            frequencies(self.unet.code, self.unet.freq_shift, self.conv_in.weight.device),
        )

    def _crossing(self) -> list[TransformerBlock]:
        """The blocks that attend to tokens, in the order of their keys and values."""
        return sorted((m for m in self.modules() if isinstance(m, TransformerBlock)), key=lambda m: m.index)

    def projects_through_taps(self) -> bool:
        """Whether a layer of the projections is tapped: of keys, of values, of the vector."""
        ports = [layer.port for b in self._crossing() for layer in (b.cross_attn.to_k, b.cross_attn.to_v)]
        if self.vector_embed is not None:
            ports += ports_in(self.vector_embed)
        return any(port.taps for port in ports)

    def embed(self, t: Tensor, projected: Projected, frame: Frame | None = None) -> Tensor:
        """SiLU of the time embedding with the vector added, (B, embedding): what every residual block reads."""
        code = sinusoidal(t, projected.freqs, self.unet.code, self.unet.cos_first)
        emb = self.time_embed(code.to(self.time_embed.inner.weight.dtype), frame)
        return F.silu(emb if projected.vector is None else emb + projected.vector)

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

    def _signal(self, signals: Mapping[str, Signal], name: str, kind: Callable[..., Any]) -> Any:
        signal = signals.get(name)
        if signal is None:
            have = ", ".join(signals) or "none"
            raise CompositionError("missing-signal", f"no {name!r} condition", fits=f"slots filled: {have}")
        if type(signal) is not kind:
            raise CompositionError("kind-mismatch", f"slot {name!r} got {type(signal).__name__}")
        return signal

    def _embed_vector(self, value: Tensor, context: Context) -> Tensor:
        dtype, embed = self.conv_in.weight.dtype, self.vector_embed
        if embed is None:
            return value.to(dtype)
        if isinstance(embed, ClassTable):
            return embed(value)
        frame = Frame(value, value.new_zeros(value.shape[0]), context)
        return embed(value if isinstance(embed, TimeLikeMLP) else value.to(dtype), frame)


def takes_context(config: UNetConfig) -> bool:
    """Whether the network has cross-attention to tokens."""
    kinds = {plan.attention for plan in (*down_levels(config), mid_level(config))}
    return config.context_dim is not None and "cross" in kinds


def unet_slots(config: UNetConfig) -> dict[str, Slot]:
    """The slots of a U-Net. All are required: the published networks have no defaults."""
    slots: dict[str, Slot] = {}
    if takes_context(config):
        slots["context"] = Slot("tokens", config.context_dim or 0, config.context_join, required=True)
    if (dim := config.vector_width) is not None:
        slots["vector"] = Slot("vector", dim, "only" if dim == 1 else "feature", required=True)
    if config.plane_channels:
        slots["plane"] = Slot("plane", config.plane_channels, "feature", required=True)
    return slots


def checked_plane(config: UNetConfig, signals: Mapping[str, Signal]) -> Tensor | None:
    """The plane that a network concatenates to x, or None.

    Raises:
        CompositionError: it is missing or has the wrong number of channels.
    """
    if not config.plane_channels:
        return None
    plane = signals.get("plane")
    if not isinstance(plane, Plane):
        raise CompositionError("missing-signal", "no 'plane' condition", fits=f"{config.plane_channels} channels")
    return plane.value


def inner_ports(module: nn.Module) -> dict[str, Port]:
    """Ports of the attentions and layers below a module, by the path of the layer they belong to."""
    ports = layer_ports(module)
    for path, part in module.named_modules():
        if isinstance(part, SelfAttention2d):
            ports[f"attn.{path}"] = part.attn_port
            ports[f"self.{path}"] = part.port
        elif isinstance(part, TransformerBlock):
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


def res_block(config: UNetConfig, inputs: int, outputs: int, resample: Any = "none") -> ResBlock:
    """A residual block with the U-Net's options."""
    return ResBlock(
        inputs,
        outputs,
        config.embedding,
        groups=config.norm_groups,
        eps=config.norm_eps,
        dropout=config.dropout,
        scale_shift=config.scale_shift,
        resample=resample,
    )


def attention(config: UNetConfig, plan: LevelPlan, index: int, groups: int | None = None) -> nn.Module:
    """The attention of a level, of either kind."""
    groups = config.norm_groups if groups is None else groups
    if plan.attention == "self":
        return SelfAttention2d(plan.width, plan.heads, groups, config.norm_eps, config.upcast_attention)
    return SpatialTransformer(
        plan.width,
        plan.heads,
        depth=plan.depth,
        context=config.context_dim,
        groups=config.norm_groups,
        upcast=config.upcast_attention,
        index=index,
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
        return res_block(config, plan.width, plan.width, way)
    if way == "down":
        return Downsample(plan.width, plan.resample == "conv", config.down_padding)
    return Upsample(plan.width, plan.resample == "conv")


def _vector_embed(config: UNetConfig) -> nn.Module | None:
    wide = config.embedding
    if config.vector == "mlp":
        return EmbeddingMLP(config.vector_dim or 0, wide)
    if config.vector == "linear":
        return PortedLinear(config.vector_dim or 0, wide)
    if config.vector == "table":
        return ClassTable(config.vector_dim or 0, wide)
    if config.vector == "timestep":
        return TimeLikeMLP(config.code, wide, config.cos_first, config.freq_shift)
    return None


def _crossings(plan: LevelPlan, attentions: int) -> int:
    return plan.depth * attentions if plan.attention == "cross" else 0


def _contiguous(pair: KeysValues) -> KeysValues:
    return pair[0].contiguous(), pair[1].contiguous()
