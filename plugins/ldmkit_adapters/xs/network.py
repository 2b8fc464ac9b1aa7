"""The network of ControlNet-XS: a thin encoder whose every block also reads the U-Net's map."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from ldmkit_denoisers.attention import KeysValues, SpatialTransformer
from ldmkit_denoisers.config import at
from ldmkit_denoisers.ported import zeroed
from ldmkit_denoisers.resnet import ResBlock
from pydantic import Field, model_validator
from torch import Tensor, nn

from ldmkit import Frame, SpecError
from ldmkit.bounds import MAX_LEVELS, Heads, Layers, SignedScale, Width
from ldmkit_adapters.windows import Window

MID_EPS = 1e-6
MID_GROUPS = 32
"""Of the middle's norms, whatever the config says of the others; their epsilon is 1e-5."""


class XSConfig(Window):
    """A ControlNet-XS. Levels count from the full resolution; a tuple gives one value a level, a single value all.

    Args:
        channels: of the latents.
        base_widths: feature channels of the U-Net that it controls, a level.
        widths: of its own.
        blocks: residual blocks a level on the way down; the way up has one more.
        attention: a level's attention after every residual block; the middle has "cross".
        depth: transformer blocks of a "cross" level, of which the middle has the last level's.
        heads: number of heads.
        context_dim: width of the tokens that the cross-attention reads.
        groups: of the norms at most; the largest number that divides their channels, see `groups_at`.
        linear_projections: published layouts store the transformer's projections as linear layers; no effect on values.
        upcast_attention: attention in float32 whatever the network's dtype.
        learn_time: it has a time embedding, which takes the place of a part of the U-Net's.
        time_mix: to the power of 0.3, that part.
        hint_channels, hint_widths: see `ControlNetConfig`.
        order: of the hint's colours that the weights were trained with; hints are RGB all the same.
        scale: factor of all that it adds.
        start, end: the part of the run, in fractions of its steps, in which it acts.
    """

    channels: Width = 4
    base_widths: tuple[Width, ...] = Field((320, 640, 1280, 1280), min_length=1, max_length=MAX_LEVELS)
    widths: tuple[Width, ...] = Field((4, 8, 16, 16), min_length=1, max_length=MAX_LEVELS)
    blocks: int = Field(2, ge=1, le=64)
    attention: tuple[Literal["none", "cross"], ...] = ("cross", "cross", "cross", "none")
    depth: Layers | tuple[Layers, ...] = 1
    heads: Heads | tuple[Heads, ...] = 4
    context_dim: Width = 1024
    groups: int = Field(32, ge=1, le=1024)
    linear_projections: bool = True
    upcast_attention: bool = True
    learn_time: bool = False
    time_mix: float = Field(1.0, ge=0, le=1)
    hint_channels: Width = 3
    hint_widths: tuple[Width, ...] = Field((16, 32, 96, 256), min_length=1, max_length=MAX_LEVELS)
    order: Literal["rgb", "bgr"] = "rgb"
    scale: SignedScale = 1.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("base_widths", "attention", "depth", "heads"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.levels:
                what = f"{name} has {len(value)} entries for {self.levels} levels"
                raise SpecError("level-count", what, where=name)
        if self.time_mix < 1 and not self.learn_time:
            what = "the U-Net's time embedding is mixed with none"
            raise SpecError("invalid", what, where="time_mix", fits="1, or learn_time")
        crossed = [i for i, kind in enumerate(self.attention) if kind == "cross"]
        for level in (*crossed, self.levels - 1):
            if self.widths[level] % at(self.heads, level):
                what = f"{at(self.heads, level)} heads do not divide width {self.widths[level]}"
                raise SpecError("heads", what, where="heads")
        return self

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.widths)

    @property
    def embedding(self) -> int:
        """Width of the U-Net's time embedding."""
        return 4 * self.base_widths[0]

    def groups_at(self, level: int) -> int:
        """The most groups of a level's norms: those of its first, as diffusers' joint model has it."""
        before = max(level - 1, 0)
        return divisor(self.widths[before] + self.base_widths[before], self.groups)

    def skips(self) -> list[tuple[int, int]]:
        """Channels of the maps left for the way up, as (own, the U-Net's), in the order they are made."""
        found = [(self.widths[0], self.base_widths[0])]
        for level, pair in enumerate(zip(self.widths, self.base_widths, strict=True)):
            found += [pair] * (self.blocks + (level < self.levels - 1))
        return found

    def joins(self) -> list[tuple[int, int]]:
        """For each of these, (own channels, channels of the U-Net's map that is joined with it), in the same order."""
        skips, found, width = self.skips(), [], self.base_widths[-1]
        for level in reversed(range(self.levels)):
            for _ in range(self.blocks + 1):
                found.append((skips.pop()[0], width))
                width = self.base_widths[level]
        return found[::-1]


def divisor(channels: int, most: int) -> int:
    """The largest number up to `most` that divides channels."""
    return next(n for n in range(min(most, channels), 0, -1) if channels % n == 0)


def zero_conv(inputs: int, outputs: int) -> nn.Conv2d:
    """A 1x1 convolution of zeros."""
    return zeroed(nn.Conv2d(inputs, outputs, 1))


class XSLevel(nn.Module):
    """One level of the way down; `to_control` and `to_base` have one entry a block, and one for the resampling."""

    def __init__(self, config: XSConfig, level: int, index: int):
        super().__init__()
        width, base = config.widths[level], config.base_widths[level]
        before = max(level - 1, 0)
        inputs = [(config.widths[before], config.base_widths[before]), *[(width, base)] * (config.blocks - 1)]
        crossed, last, most = config.attention[level] == "cross", level == config.levels - 1, config.groups_at(level)
        self.res = nn.ModuleList(
            ResBlock(own + theirs, width, config.embedding, groups=divisor(own + theirs, most),
                     groups_out=divisor(width, most))
            for own, theirs in inputs
        )  # fmt: skip
        steps = at(config.depth, level)
        self.attn = nn.ModuleList(
            crossing(config, level, index + i * steps) for i in range(config.blocks if crossed else 0)
        )
        sources = [theirs for _, theirs in inputs] + ([] if last else [base])
        self.to_control = nn.ModuleList(zero_conv(theirs, theirs) for theirs in sources)
        self.to_base = nn.ModuleList(zero_conv(width, base) for _ in sources)
        self.resample = None if last else nn.Conv2d(width + base, width, 3, stride=2, padding=1)

    def block(self, i: int, h: Tensor, theirs: Tensor, emb: Tensor, frame: Frame, kv: Crossed) -> tuple[Tensor, Tensor]:
        """The map after block i, and what it adds to the U-Net's, whose map before its block is `theirs`."""
        h = self.res[i](torch.cat([h, self.to_control[i](theirs)], dim=1), emb)
        if self.attn:
            h = self.attn[i](h, frame, *kv)
        return h, self.to_base[i](h)

    def resampled(self, h: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        """The map at half the size, and what it adds to the U-Net's."""
        assert self.resample is not None
        h = self.resample(torch.cat([h, self.to_control[-1](theirs)], dim=1))
        return h, self.to_base[-1](h)


class XSMiddle(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, config: XSConfig, index: int):
        super().__init__()
        width, base = config.widths[-1], config.base_widths[-1]
        groups = divisor(math.gcd(width, width + base), MID_GROUPS)
        self.to_control, self.to_base = zero_conv(base, base), zero_conv(width, base)
        self.res = nn.ModuleList(
            ResBlock(inputs, width, config.embedding, groups=groups, eps=MID_EPS) for inputs in (width + base, width)
        )
        self.attn = crossing(config, config.levels - 1, index, groups)

    def forward(self, h: Tensor, theirs: Tensor, emb: Tensor, frame: Frame, kv: Crossed) -> Tensor:
        """What it adds to the U-Net's middle, whose input is `theirs`."""
        h = self.res[0](torch.cat([h, self.to_control(theirs)], dim=1), emb)
        return self.to_base(self.res[1](self.attn(h, frame, *kv), emb))  # type: ignore[no-any-return]


Crossed = tuple[tuple[KeysValues, ...], Tensor | None]
"""Keys and values of every cross-attention, and the mask of the tokens."""


def crossing(config: XSConfig, level: int, index: int, groups: int | None = None) -> SpatialTransformer:
    """The attention of a level, or of the middle."""
    width = config.widths[level]
    return SpatialTransformer(
        width,
        at(config.heads, level),
        depth=at(config.depth, level),
        context=config.context_dim,
        groups=divisor(width, config.groups_at(level)) if groups is None else groups,
        upcast=config.upcast_attention,
        index=index,
    )
