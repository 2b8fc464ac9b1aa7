"""The config of a U-Net, and the plan of its levels that follows from it."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, Self, TypeVar

from pydantic import Field, model_validator

from ldmkit import Join, SpecError, Value
from ldmkit.bounds import MAX_HEADS, MAX_LAYERS, MAX_LEVELS, MAX_WIDTH, Heads, Layers, Rows, Width

T = TypeVar("T")

AttentionKind = Literal["none", "self", "cross", "joint"]
MidKind = Literal["none", "self", "cross", "joint", "absent", "single"]
Activation = Literal["silu", "gelu", "relu", "mish"]
VectorKind = Literal["none", "mlp", "linear", "identity", "timestep", "table"]
ResampleKind = Literal["none", "conv", "plain", "residual"]

_PER_LEVEL = ("blocks", "attention", "depth", "heads", "head_dim", "residual_resample", "output_scale", "only_cross")
_MOST = {"blocks": 64, "depth": MAX_LAYERS, "heads": MAX_HEADS, "head_dim": MAX_WIDTH}
"""Maximum values of settings that may differ between levels."""


SMALL = {"channels": 3, "widths": (8, 16), "blocks": 1, "norm_groups": 4, "heads": 2}
"""Two levels, for examples."""


class UNetConfig(Value):
    """A U-Net. Levels count from the full resolution; a tuple gives one value per level, a single value applies to all.

    Args:
        channels: channels of the latents x.
        in_channels: input channels including a concatenated plane; None: `channels`, no plane.
        out_channels: channels of F; None: `channels`.
        widths: feature channels per level.
        blocks: residual blocks per level on the way down; the way up has one more.
        attention: a level's attention after every residual block: "none", "self" (a block on the map), "cross"
            (a spatial transformer) or "joint" (a block on the map whose keys are the context's and the map's).
        depth: transformer blocks of a "cross" level; `mid_depth` of the middle (None: the last level's).
        mid: the middle's attention; None: that of the deepest level that has one, else "self"; "absent": no middle;
            "single": one residual block and nothing else.
        heads, head_dim: number of heads, or channels per head; exactly one of them.
        mid_heads: heads of the middle; None: as for the last level.
        context_dim: width of the cross-attention's tokens; None: its second attention is a self-attention too.
        context_join: how several conditioners of the `context` slot join.
        linear_projections: published layouts store the transformer's projections as linear layers; does not affect
            results.
        scale_shift: the time embedding scales and shifts features instead of being added.
        residual_resample: down- and upsampling of a level (to and from the next deeper one) inside residual blocks.
        resample_conv: down- and upsampling with a convolution, where not residual.
        down_padding: 1, or 0 for zeros at the bottom and right only.
        norm_groups, norm_eps: of the GroupNorms, save the transformers' (eps 1e-6).
        mid_groups: groups of the norm in the middle's "self" attention; None: `norm_groups`; 0: no norm.
        dropout: rate in the residual blocks.
        time_dim: width of the time embedding; None: 4 x the first width.
        time_code: width of the timestep's sinusoidal code; None: the first width.
        cos_first, freq_shift: variants of the sinusoidal timestep embedding.
        time_table: the timestep embedding is a learned table of so many timesteps, not a sinusoidal one.
        vector: how the `vector` slot is embedded before it is added to the time embedding: by a two-layer network,
            a linear layer, not at all, as a timestep-like embedding of one number, or by a table of class ids.
        vector_dim: width of the vector for "mlp" and "linear", number of classes for "table".
        upcast_attention: attention in float32 whatever the network's dtype; "joint" attention ignores it.
        activation: of the residual blocks, the output, and the networks of times ("timestep" vectors included); an
            "mlp" vector's network keeps SiLU.
        time_activations: applied, in this order, to the sum of the embeddings that all residual blocks read; None:
            `activation`.
        output_scale: residual blocks' outputs are divided by it; `mid_scale` in the middle.
        only_cross: a "cross" level's first attention reads the context too, and a "joint" level's keys are the
            context's alone; `mid_only_cross` in the middle.
        context_source: width of the tokens given, which a linear layer brings to `context_dim`; None: `context_dim`.
        context_groups: groups of a GroupNorm of the tokens in every "joint" attention; None: no norm.
        pool_heads: heads of an attention pool of the tokens given, added to the time embedding; None: no pool.
        image_dim: width of the `image` slot, a picture's embedding; None: no such slot.
        image_tokens: number of tokens that the context is made of, from the picture's embedding; None: it is given.
            Beside `context_source` they stand before the tokens given (unCLIP's decoder).
        image_time: the picture's embedding is added to the time embedding.
        image_norm: LayerNorms after the linear layers that read the picture's embedding (Kandinsky: yes, Karlo: no).
        context_norm: a LayerNorm after the layer of `context_source`.
    """

    channels: Width
    in_channels: Width | None = None
    out_channels: Width | None = None
    widths: tuple[Width, ...] = Field(min_length=1, max_length=MAX_LEVELS)
    blocks: int | tuple[int, ...] = 2
    attention: tuple[AttentionKind, ...] | None = None
    depth: int | tuple[int, ...] = 1
    mid: MidKind | None = None
    mid_depth: Layers | None = None
    heads: int | tuple[int, ...] | None = None
    head_dim: int | tuple[int, ...] | None = None
    mid_heads: Heads | None = None
    context_dim: Width | None = None
    context_join: Join = "length"
    linear_projections: bool = False
    scale_shift: bool = False
    residual_resample: bool | tuple[bool, ...] = False
    resample_conv: bool = True
    down_padding: Literal[0, 1] = 1
    norm_groups: Width = 32
    norm_eps: float = Field(1e-5, gt=0)
    mid_groups: int | None = Field(None, ge=0, le=MAX_WIDTH)
    dropout: float = Field(0.0, ge=0, lt=1)
    time_dim: Width | None = None
    time_code: Width | None = None
    cos_first: bool = True
    freq_shift: float = 0.0
    time_table: Rows | None = None
    vector: VectorKind = "none"
    vector_dim: Rows | None = None
    upcast_attention: bool = False
    activation: Activation = "silu"
    time_activations: tuple[Activation, ...] | None = Field(None, max_length=4)
    output_scale: float | tuple[float, ...] = 1.0
    mid_scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    only_cross: bool | tuple[bool, ...] = False
    mid_only_cross: bool = False
    context_source: Width | None = None
    context_groups: Width | None = None
    pool_heads: Heads | None = None
    image_dim: Width | None = None
    image_tokens: Layers | None = None
    image_time: bool = False
    image_norm: bool = True
    context_norm: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in _PER_LEVEL:
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.levels:
                raise SpecError("level-count", f"{name} has {len(value)} entries for {self.levels} levels", where=name)
            numbers = value if isinstance(value, tuple) else (value,)
            most = _MOST.get(name)
            if most is not None and any(v is not None and not 1 <= v <= most for v in numbers):
                raise SpecError("invalid", f"{name} is {value}", where=name, fits=f"1 to {most}")
        if (self.heads is None) == (self.head_dim is None):
            raise SpecError("heads", "give exactly one of heads and head_dim", where="heads")
        if (self.in_channels or self.channels) < self.channels:
            raise SpecError("in-channels", f"in_channels {self.in_channels} is less than channels {self.channels}")
        if (self.vector_dim is None) != (self.vector not in ("mlp", "linear", "table")):
            raise SpecError("vector", f"vector {self.vector!r} is incompatible with vector_dim {self.vector_dim}")
        if not all(0 < value < math.inf for value in _each(self.output_scale)):
            raise SpecError("invalid", f"output_scale is {self.output_scale}", where="output_scale", fits="above 0")
        self._check_widths()
        self._check_total()
        self._check_context()
        return self

    def _check_context(self) -> None:
        kinds = {plan.attention for plan in (*down_levels(self), mid_level(self))}
        if "joint" in kinds and self.context_dim is None:
            raise SpecError("context", "joint attention reads a context, and context_dim is missing", where="attention")
        if self.context_dim is None and (self.mid_only_cross or any(_each(self.only_cross))):
            raise SpecError("context", "only_cross reads a context, and context_dim is missing", where="only_cross")
        if self.context_dim is None and (self.context_source or self.image_tokens or self.pool_heads):
            fits = "context_dim, or none of context_source, image_tokens, pool_heads"
            raise SpecError("context", "there is no context to make or to pool", where="context_dim", fits=fits)
        if self.image_tokens and self.pool_heads:
            what = "the pool reads tokens that are given, and the context has some of the picture's embedding"
            raise SpecError("context", what, where="pool_heads", fits="image_tokens, or pool_heads")
        if self.context_norm and not self.context_source:
            raise SpecError("context", "context_norm follows the layer of context_source", where="context_norm")
        if (self.image_dim is not None) != (self.image_time or self.image_tokens is not None):
            what = "image_dim, and image_tokens or image_time, belong together"
            raise SpecError("image", what, where="image_dim")
        for name, parts, width in (
            ("pool_heads", self.pool_heads, self.context_source or self.context_dim),
            ("context_groups", self.context_groups, self.context_dim),
        ):
            if parts and (width is None or width % parts):
                raise SpecError("widths", f"{name} {parts} does not divide the tokens' {width}", where=name)

    def _check_total(self) -> None:
        plans = [*down_levels(self), mid_level(self), *up_levels(self)]
        total = sum(len(plan.inputs) * plan.depth for plan in plans if plan.attention == "cross")
        if total > MAX_LAYERS:
            fits = f"at most {MAX_LAYERS}"
            raise SpecError("invalid", f"{total} transformer blocks in all", where="depth", fits=fits)

    def _check_widths(self) -> None:
        for width in self.widths:
            if width < 1 or width % self.norm_groups:
                raise SpecError(
                    "widths", f"width {width} is not a multiple of {self.norm_groups} groups", where="widths"
                )
        for plan in (*down_levels(self), mid_level(self)):
            if plan.attention != "none" and plan.width % plan.heads:
                raise SpecError("heads", f"{plan.heads} heads do not divide width {plan.width}", where="heads")

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.widths)

    @property
    def plane_channels(self) -> int:
        """Channels concatenated to x."""
        return (self.in_channels or self.channels) - self.channels

    @property
    def embedding(self) -> int:
        """Width of the time embedding."""
        return self.time_dim or 4 * self.widths[0]

    @property
    def code(self) -> int:
        """Width of the sinusoidal code that the time embedding reads."""
        return self.time_code or self.widths[0]

    @property
    def vector_width(self) -> int | None:
        """Width of the `vector` slot; None without that slot. A class or a timestep is one number."""
        wide = {"none": None, "identity": self.embedding, "timestep": 1, "table": 1}
        return wide.get(self.vector, self.vector_dim)

    @property
    def attends(self) -> bool:
        """Whether any block has attention."""
        return {*(self.attention or ("none",)), self.mid_kind} - {"none", "absent", "single"} != set()

    def kind_at(self, level: int) -> AttentionKind:
        """Attention of a level."""
        return self.attention[level] if self.attention is not None else "none"

    @property
    def mid_kind(self) -> MidKind:
        """Attention of the middle, resolved."""
        if self.mid is not None:
            return self.mid
        kinds = [kind for kind in reversed(self.attention or ()) if kind != "none"]
        return kinds[0] if kinds else "self"

    def heads_at(self, level: int, width: int) -> int:
        """Heads of an attention with `width` channels at a level."""
        if self.heads is not None:
            return at(self.heads, level)
        assert self.head_dim is not None
        size = at(self.head_dim, level)
        if width % size and self.kind_at(level) != "none":
            raise SpecError("heads", f"heads of {size} channels do not divide width {width}", where="head_dim")
        return max(width // size, 1)


class LevelPlan(NamedTuple):
    """One level of one side: input widths of its residual blocks, their attention, and resampling."""

    level: int
    width: int
    inputs: tuple[int, ...]
    attention: AttentionKind
    depth: int
    heads: int
    resample: ResampleKind
    output_scale: float = 1.0
    only_cross: bool = False


def at(value: T | tuple[T, ...], level: int) -> T:
    """The value of a setting at a level; a single value applies to all levels."""
    return value[level] if isinstance(value, tuple) else value


def _each(value: T | tuple[T, ...]) -> tuple[T, ...]:
    return value if isinstance(value, tuple) else (value,)


def down_levels(config: UNetConfig) -> list[LevelPlan]:
    """The way down, full resolution first."""
    plans, width = [], config.widths[0]
    for level, after in enumerate(config.widths):
        inputs = (width, *[after] * (at(config.blocks, level) - 1))
        last = level == config.levels - 1
        plans.append(_plan(config, level, inputs, "none" if last else _resample(config, level)))
        width = after
    return plans


def smallest_map(config: UNetConfig) -> int:
    """Minimum rows and columns of latents, so that no level's map is empty."""
    need = 1
    for plan in reversed(down_levels(config)):
        if plan.resample != "none":  # padded convolutions round halves up, all other ways round down
            need = 2 * need - (plan.resample == "conv" and config.down_padding == 1)
    return need


def skip_widths(config: UNetConfig) -> list[int]:
    """Channels of the skip maps, in the order in which the way down makes them."""
    widths = [config.widths[0]]
    for plan in down_levels(config):
        widths += [plan.width] * (len(plan.inputs) + (plan.resample != "none"))
    return widths


def up_levels(config: UNetConfig) -> list[LevelPlan]:
    """The way up, deepest level first; `resample` is what follows the level's blocks."""
    skips, width, plans = skip_widths(config), config.widths[-1], []
    for level in reversed(range(config.levels)):
        inputs = []
        for _ in range(at(config.blocks, level) + 1):
            inputs.append(width + skips.pop())
            width = config.widths[level]
        plans.append(_plan(config, level, tuple(inputs), _resample(config, level) if level else "none"))
    return plans


def mid_level(config: UNetConfig) -> LevelPlan:
    """The middle; it has no inputs if there is none."""
    level, width, kind = config.levels - 1, config.widths[-1], config.mid_kind
    heads = config.mid_heads or config.heads_at(level, width)
    depth = config.mid_depth or at(config.depth, level)
    if kind == "absent":
        return LevelPlan(level, width, (), "none", depth, heads, "none")
    if kind == "single":
        return LevelPlan(level, width, (width,), "none", depth, heads, "none", config.mid_scale)
    only = config.mid_only_cross
    return LevelPlan(level, width, (width, width), kind, depth, heads, "none", config.mid_scale, only)


def _plan(config: UNetConfig, level: int, inputs: tuple[int, ...], resample: ResampleKind) -> LevelPlan:
    width = config.widths[level]
    heads = config.heads_at(level, width)
    depth, scale, only = (at(v, level) for v in (config.depth, config.output_scale, config.only_cross))
    return LevelPlan(level, width, inputs, config.kind_at(level), depth, heads, resample, scale, only)


def _resample(config: UNetConfig, level: int) -> ResampleKind:
    if at(config.residual_resample, level):
        return "residual"
    return "conv" if config.resample_conv else "plain"
