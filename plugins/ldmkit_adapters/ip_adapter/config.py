"""What an IP-Adapter is configured by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from ldmkit import Value
from ldmkit.bounds import Heads, Layers, Length, SignedScale, Width
from ldmkit_adapters.scales import check_scales, scale_of
from ldmkit_adapters.windows import Window


class Attended(Value):
    """A cross-attention that pictures are added to: its port, `cross.<path>`, and the width of its queries."""

    port: str
    width: Width


class IPAdapterConfig(Window):
    """An IP-Adapter; the defaults are those of the plain one for Stable Diffusion 1.

    Args:
        layers: the attentions that it is added to.
        projection: `plain`: one embedding to `tokens`; `resampler`: latents read all of the encoder's tokens (plus);
            `full`: each of the encoder's tokens by itself.
        source: width of what the encoder gives.
        length: of its tokens for a picture.
        tokens: for each picture that the network attends to.
        dim: of these tokens.
        width, heads, head_dim, mlp, depth: of the resampler.
        scale: of all; 0 is the network without it.
        scales: further factors for attentions whose path begins so: `down.1`, `mid`; the longest that fits counts.
        regions: how many pictures with regions it takes at most; 0: it has no slot for regions.
        weights: of each picture; with them every picture is attended to by itself. (): all are attended to together,
            but where they have regions.
        start, end: the part of the run, in fractions of its steps, in which it acts.
    """

    layers: tuple[Attended, ...] = Field(min_length=1)
    projection: Literal["plain", "resampler", "full"] = "plain"
    source: Width = 1024
    length: Length = 1
    tokens: Length = 4
    dim: Width = 768
    width: Width = 768
    heads: Heads = 12
    head_dim: Width = 64
    mlp: Width = 3072
    depth: Layers = 4
    scale: SignedScale = 1.0
    scales: Mapping[str, SignedScale] = Field(default_factory=dict)
    regions: int = Field(default=8, ge=0, le=256)
    weights: tuple[SignedScale, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        paths = [layer.port.partition(".")[2] for layer in self.layers]
        check_scales(self.scales, paths, "attentions")
        if self.projection == "plain" and self.length != 1:
            raise ValueError(f"a plain projection reads one token a picture, not {self.length}")
        if self.projection == "full" and self.length != self.tokens:
            raise ValueError(f"a full projection makes {self.length} tokens of {self.length}, not {self.tokens}")
        return self

    @property
    def strengths(self) -> dict[str, float]:
        """Port -> the factor of the attention there."""
        return {one.port: scale_of(one.port.partition(".")[2], self.scale, self.scales) for one in self.layers}
