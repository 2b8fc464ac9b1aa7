"""Encoder and decoder of the paper's first stages (Rombach et al. 2022, appendix G.1), after Esser et al. 2021.

Levels count from the full resolution: level i works at H / 2**i. Group norms have eps 1e-6. The encoder
halves by a 3x3 convolution of stride 2 on a map padded at the right and at the bottom only; the decoder
doubles by nearest-neighbour interpolation and a 3x3 convolution, and has one more residual block per level.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, Self, TypeAlias

import torch
import torch.nn.functional as F
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor, nn

from ldmkit import Value
from ldmkit.bounds import MAX_LEVELS, Width
from ldmkit_codecs.shapes import PerChannel, check_per_channel, without_upcast
from ldmkit_codecs.spatial import Guide, SpatialNorm

EPS = 1e-6

Attend: TypeAlias = Literal["vanilla", "linear"]
LayerCall: TypeAlias = Callable[[Tensor], Tensor]
Norms: TypeAlias = Callable[[int, int], nn.Module]
"""(groups, channels) -> a norm."""

SMALL = {"widths": (8, 16, 16), "norm_groups": 4, "blocks": 1}
"""A geometry for examples."""


class AutoencoderConfig(Value):
    """Geometry shared by the KL and the VQ codec.

    Args:
        in_channels: channels of input pictures.
        out_channels: channels of output pictures.
        widths: channels of each level, full resolution first; factor = 2 ** (levels - 1).
        blocks: residual blocks per level in the encoder; the decoder has one more.
        attention_levels: levels in which every residual block is followed by attention.
        level_attention: kind of that attention.
        mid_attention: the attention between the two blocks at the lowest resolution.
        norm_groups: number of groups of every norm; must divide every width.
        z_channels: channels between encoder or decoder and the 1x1 convolutions.
        embed_dim: latent channels; None: z_channels.
        resample_conv: resample with convolutions; False: average pooling down, and nearest-neighbour interpolation up.
        tanh_out: squash the decoder's output to (-1, 1).
        dropout: rate before the second convolution of residual blocks, in training.
        scale, shift: standardised latent = (raw - shift) * scale; a number, or one per latent channel. If the scale is
            unknown (None), the codec works as with 1, but composes with no denoiser.
        force_upcast: keep weights in float32 if float16 is requested, because float16 overflows in this codec.
    """

    in_channels: Width = 3
    out_channels: Width = 3
    widths: tuple[Width, ...] = Field(default=(128, 256, 512), min_length=1, max_length=MAX_LEVELS)
    blocks: int = Field(default=2, ge=1, le=64)
    attention_levels: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(), max_length=MAX_LEVELS)
    level_attention: Attend = "vanilla"
    mid_attention: Literal["vanilla", "linear", "none"] = "vanilla"
    norm_groups: Width = 32
    z_channels: Width = 4
    embed_dim: Width | None = None
    resample_conv: bool = True
    tanh_out: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)
    scale: PerChannel | None = 1.0
    shift: PerChannel = 0.0
    force_upcast: bool = False

    @model_serializer(mode="wrap")
    def _known(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_upcast(serialise(self))

    @property
    def latent_channels(self) -> int:
        """Channels of the latent."""
        return self.z_channels if self.embed_dim is None else self.embed_dim

    @property
    def factor(self) -> int:
        """Spatial stride of the latent."""
        return int(2 ** (len(self.widths) - 1))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for width in self.widths:
            if width % self.norm_groups:
                raise ValueError(f"width {width} is not a multiple of {self.norm_groups} norm groups")
        for level in self.attention_levels:
            if level >= len(self.widths):
                raise ValueError(f"there is no attention level {level}: the {len(self.widths)} levels count from 0")
        check_per_channel("scale", self.scale, self.latent_channels)
        check_per_channel("shift", self.shift, self.latent_channels)
        return self


def silu(fresh: Tensor) -> Tensor:
    """SiLU of a tensor that nothing else refers to: in place unless autograd needs it."""
    return F.silu(fresh, inplace=not (torch.is_grad_enabled() and fresh.requires_grad))


def group_norm(groups: int, channels: int) -> nn.Module:
    """An ordinary group norm."""
    return nn.GroupNorm(groups, channels, eps=EPS)


def spatial_norms(groups: int, guide: int) -> Norms:
    """Norms that read a guide of `guide` channels, all with `groups` groups."""
    return lambda _, channels: SpatialNorm(groups, channels, guide, EPS)


def normed(norm: nn.Module, x: Tensor, guide: Guide | None) -> Tensor:
    """A norm of a map; spatial norms also read the guide."""
    return norm(x) if guide is None else norm(x, guide)


class ResnetBlock(nn.Module):
    """(B, c_in, h, w) -> (B, c_out, h, w): norm, SiLU and 3x3 convolution, twice, plus a skip connection."""

    def __init__(self, c_in: int, c_out: int, groups: int = 32, dropout: float = 0.0, norms: Norms = group_norm):
        super().__init__()
        self.norm1 = norms(groups, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = norms(groups, c_out)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor, guide: Guide | None = None) -> Tensor:
        h = self.conv1(silu(normed(self.norm1, x, guide)))
        h = silu(normed(self.norm2, h, guide))
        if self.dropout is not None:
            h = self.dropout(h)
        return self.conv2(h).add_(x if self.skip is None else self.skip(x))


class Attention(nn.Module):
    """Single-head self-attention over all positions, residual: (B, c, h, w) -> (B, c, h, w). Scale c**-0.5."""

    def __init__(self, channels: int, groups: int = 32, norms: Norms = group_norm):
        super().__init__()
        self.norm = norms(groups, channels)
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, guide: Guide | None = None) -> Tensor:
        tokens = normed(self.norm, x, guide).flatten(2).transpose(1, 2)[:, None]
        h = F.scaled_dot_product_attention(self.q(tokens), self.k(tokens), self.v(tokens))
        return x + self.out(h[:, 0]).transpose(1, 2).reshape(x.shape)


class LinearAttention(nn.Module):
    """Attention with a softmax over the keys only (Shen et al. 2021), one head, no norm, no residual."""

    def __init__(self, channels: int):
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, dim=2)
        context = k.softmax(dim=1).transpose(1, 2) @ v
        return self.out(q @ context).transpose(1, 2).reshape(x.shape)


def attention(kind: Attend, channels: int, groups: int, norms: Norms = group_norm) -> nn.Module:
    """An attention block of the given kind."""
    return Attention(channels, groups, norms) if kind == "vanilla" else LinearAttention(channels)


def guided(layer: nn.Module, guide: Guide | None) -> LayerCall:
    """A layer as a function of its map alone."""
    return partial(layer, guide=guide) if guide is not None and isinstance(layer, (ResnetBlock, Attention)) else layer


class Downsample(nn.Module):
    """(B, c, h, w) -> (B, c, h/2, w/2)."""

    def __init__(self, channels: int, with_conv: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2) if with_conv else None

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is None:
            return F.avg_pool2d(x, 2)
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """(B, c, h, w) -> (B, c, 2h, 2w)."""

    def __init__(self, channels: int, with_conv: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if with_conv else None

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return x if self.conv is None else self.conv(x)


class Level(nn.Module):
    """Blocks at one resolution, each followed by attention if the level has it, then resampling."""

    def __init__(
        self,
        config: AutoencoderConfig,
        level: int,
        c_in: int,
        blocks: int,
        resample: nn.Module | None,
        norms: Norms = group_norm,
    ):
        super().__init__()
        width, groups = config.widths[level], config.norm_groups
        inputs = [c_in] + [width] * (blocks - 1)
        self.block = nn.ModuleList(ResnetBlock(c, width, groups, config.dropout, norms) for c in inputs)
        attends = blocks if level in config.attention_levels else 0
        self.attn = nn.ModuleList(attention(config.level_attention, width, groups, norms) for _ in range(attends))
        self.resample = resample

    def steps(self, guide: Guide | None = None) -> list[LayerCall]:
        """Its layers in order."""
        found: list[LayerCall] = []
        for index, block in enumerate(self.block):
            found.append(guided(block, guide))
            found += [guided(self.attn[index], guide)] if self.attn else []
        return found if self.resample is None else [*found, self.resample]


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, config: AutoencoderConfig, norms: Norms = group_norm):
        super().__init__()
        width, groups, kind = config.widths[-1], config.norm_groups, config.mid_attention
        self.block1 = ResnetBlock(width, width, groups, config.dropout, norms)
        self.attn = None if kind == "none" else attention(kind, width, groups, norms)
        self.block2 = ResnetBlock(width, width, groups, config.dropout, norms)

    def steps(self, guide: Guide | None = None) -> list[LayerCall]:
        """Its layers in order."""
        return [guided(layer, guide) for layer in (self.block1, self.attn, self.block2) if layer is not None]


class Encoder(nn.Module):
    """Pictures (B, in_channels, H, W) -> features (B, out, H/factor, W/factor)."""

    def __init__(self, config: AutoencoderConfig, out: int):
        super().__init__()
        widths, last = config.widths, len(config.widths) - 1
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            Level(
                config,
                level,
                widths[max(level - 1, 0)],
                config.blocks,
                Downsample(width, config.resample_conv) if level != last else None,
            )
            for level, width in enumerate(widths)
        )
        self.mid = Middle(config)
        self.norm_out = nn.GroupNorm(config.norm_groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], out, 3, padding=1)

    def steps(self) -> list[LayerCall]:
        """The layers that pictures pass through, in order; each maps a feature map to a feature map."""
        levels = [step for level in self.down for step in level.steps()]
        return [self.conv_in, *levels, *self.mid.steps(), self.finish]

    def finish(self, h: Tensor) -> Tensor:
        """The last norm and convolution."""
        return self.conv_out(silu(self.norm_out(h)))

    def forward(self, images: Tensor) -> Tensor:
        h = images
        for step in self.steps():
            h = step(h)
        return h


class Decoder(nn.Module):
    """Features (B, z_channels, h, w) -> pictures (B, out_channels, h * factor, w * factor).

    Args:
        norms: makes its norms; those of `spatial_norms` read the latent, which `forward` then takes as well.
    """

    def __init__(self, config: AutoencoderConfig, norms: Norms = group_norm):
        super().__init__()
        widths, last = config.widths, len(config.widths) - 1
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(config, norms)
        self.up = nn.ModuleList(
            Level(
                config,
                level,
                widths[min(level + 1, last)],
                config.blocks + 1,
                Upsample(width, config.resample_conv) if level else None,
                norms,
            )
            for level, width in enumerate(widths)
        )
        self.norm_out = norms(config.norm_groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)
        self.tanh_out, self.factor = config.tanh_out, config.factor

    def steps(self, guide: Guide | None = None) -> list[LayerCall]:
        """The layers that features pass through, in order; each maps a feature map to a feature map."""
        levels = [step for level in reversed(self.up) for step in level.steps(guide)]
        return [self.conv_in, *self.mid.steps(guide), *levels, partial(self.finish, guide=guide)]

    def finish(self, h: Tensor, guide: Guide | None = None) -> Tensor:
        """The last norm and convolution, squashed if the config says so."""
        images = self.conv_out(silu(normed(self.norm_out, h, guide)))
        return images.tanh() if self.tanh_out else images

    def forward(self, features: Tensor, latent: Tensor | None = None) -> Tensor:
        """`latent` (B, c, h, w) is what spatial norms read."""
        h = features
        for step in self.steps(None if latent is None else Guide(latent, self.factor)):
            h = step(h)
        return h
