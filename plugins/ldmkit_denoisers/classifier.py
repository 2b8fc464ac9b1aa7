"""A classifier of noisy latents: the first half of a U-Net, and a pooled head (Dhariwal & Nichol 2021, appendix H)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from ldmkit import (
    Classifier,
    CompositionError,
    Context,
    Example,
    Frame,
    InputError,
    PartSpec,
    Process,
    Value,
    attention,
    build_value,
    column,
)
from ldmkit.bounds import Rows
from ldmkit_denoisers.config import SMALL, UNetConfig
from ldmkit_denoisers.encoder import Encoder


class UNetClassifierConfig(Value):
    """Args:
    unet: the network, of which the first half is used; it takes no conditions.
    classes: number of classes.
    names: names of the classes, in order; empty if they only have numbers.
    pool: `attention`: attention pooling from the mean, with `pool_heads` heads; `mean`: the mean; `positions`:
        attention pooling with an embedding of each position (guided-diffusion), for one size of latents only.
    pool_side: of "positions": rows and columns of the deepest map.
    process: the process whose scale and times the network's input has. It can guide any process.
    """

    unet: UNetConfig
    classes: Rows
    names: tuple[str, ...] = ()
    pool: Literal["attention", "mean", "positions"] = "attention"
    pool_heads: int = Field(default=4, ge=1)
    pool_side: int | None = Field(default=None, ge=1, le=256)
    process: PartSpec = PartSpec(type="discrete")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.names and (len(self.names) != self.classes or len(set(self.names)) != self.classes):
            raise ValueError(f"{len(set(self.names))} different names for {self.classes} classes")
        unet = self.unet
        if unet.context_dim or unet.image_dim or unet.vector != "none" or unet.plane_channels:
            raise ValueError("a classifier takes no conditions: no context_dim, image_dim, vector or plane")
        if (self.pool_side is None) == (self.pool == "positions"):
            raise ValueError(f"pool_side {self.pool_side} with pool {self.pool!r}: it is the size of 'positions'")
        if unet.widths[-1] % self.pool_heads:
            raise ValueError(f"{self.pool_heads} heads do not divide the last width, {unet.widths[-1]}")
        return self


class UNetClassifier(Classifier, Encoder):
    """Latents with noise -> logits of classes, at any resolution that the U-Net takes."""

    Config = UNetClassifierConfig
    config: UNetClassifierConfig
    examples = (
        Example({"unet": {**SMALL, "attention": ("none", "self")}, "classes": 5}, vary={"pool": ("attention", "mean")}),
        Example({"unet": SMALL, "classes": 2, "names": ("cat", "dog"), "pool": "mean", "process": {"type": "flow"}}),
    )

    def __init__(self, config: Any = None):
        super().__init__(config)
        c = self.config
        self.channels, self.classes, self.names = c.unet.channels, c.classes, c.names
        self.process: Process = build_value("process", c.process)
        self.build_encoder(c.unet)
        width = c.unet.widths[-1]
        self.norm_out = nn.GroupNorm(c.unet.norm_groups, width, c.unet.norm_eps)
        if c.pool == "positions":
            self.pool: nn.Module | None = PositionPool(width, c.pool_heads, c.pool_side or 0, c.classes)
            self.head: nn.Module = nn.Identity()
        else:
            self.pool = AttentionPool(width, c.pool_heads) if c.pool == "attention" else None
            self.head = nn.Linear(width, c.classes)

    def forward(self, x: Tensor, sigma: Sequence[float]) -> Tensor:
        """Raises CompositionError: `classifier-channels`: latents of another codec."""
        if x.shape[1] != self.channels:
            what = f"latents have {x.shape[1]} channels, the classifier was trained on {self.channels}"
            raise CompositionError(
                "classifier-channels", what, where="classifier", fits="the codec it was trained with"
            )
        own = x * column([self.process.alpha(s) for s in sigma], x)
        times = torch.tensor([self.process.time(s) for s in sigma], dtype=torch.float32, device=x.device)
        context = Context({})
        projected = self.project({}, context)
        emb = self.embed(times, projected)
        h = self.conv_in(own.to(self.conv_in.weight.dtype))
        h = self.encode(h, emb, Frame(h, times, context), projected).h
        places = F.silu(self.norm_out(h)).flatten(2).transpose(1, 2)
        pooled = places.mean(1) if self.pool is None else self.pool(places)
        return self.head(pooled).float()  # type: ignore[no-any-return]


class AttentionPool(nn.Module):
    """(B, positions, width) -> (B, width): the mean over positions attends to itself and to all positions.

    After Radford et al. 2021, without position embeddings, so that any number of positions works.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, places: Tensor) -> Tensor:
        mean = places.mean(1, keepdim=True)
        keys, values = self.kv(torch.cat([mean, places], 1)).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.q(mean), keys, values))
        return mean[:, 0] + self.out(attention(q, k, v).transpose(1, 2).flatten(1))


class PositionPool(nn.Module):
    """(B, side^2, width) -> (B, outputs): the mean over positions attends to itself and to all positions.

    After Radford et al. 2021, with an embedding of each position, so that there is one size of maps.
    """

    def __init__(self, width: int, heads: int, side: int, outputs: int):
        super().__init__()
        self.heads, self.side = heads, side
        self.positions = nn.Parameter(nn.init.normal_(torch.empty(side * side + 1, width), std=width**-0.5))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, outputs)

    def forward(self, places: Tensor) -> Tensor:
        """Raises InputError: `classifier-size`: a map of another size."""
        if places.shape[1] != self.side**2:
            what = f"its deepest map has {places.shape[1]} positions, and it was made for {self.side}x{self.side}"
            raise InputError("classifier-size", what, where="classifier", fits="latents of the size of its training")
        tokens = torch.cat([places.mean(1, keepdim=True), places], 1) + self.positions
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in self.qkv(tokens).chunk(3, dim=-1))
        return self.out(attention(q[:, :, :1], k, v).transpose(1, 2).flatten(1))  # type: ignore[no-any-return]
