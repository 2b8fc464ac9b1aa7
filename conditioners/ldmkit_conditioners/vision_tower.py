"""The CLIP vision transformer: OpenAI's CLIP-L, open-CLIP's ViT-H and bigG, by config. See `clip_tower` for texts."""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ldmkit import Value
from ldmkit.bounds import Heads, Layers, Width
from ldmkit_conditioners.transformer import Activation, Block

MAX_EDGE = 2048
"""Pixels of a side of the pictures that an encoder reads."""


class VisionConfig(Value):
    """Shape of a tower; the defaults are open-CLIP ViT-H/14's.

    Args:
        projection: width of the projected embedding.
        edge: pixels of a side of its pictures, which are square.
        patch: pixels of a side of a patch; pixels left over at the right and bottom are not used.
    """

    width: Width = 1280
    layers: Layers = 32
    heads: Heads = 16
    mlp: Width = 5120
    activation: Activation = "gelu"
    projection: Width = 1024
    edge: int = Field(default=224, ge=1, le=MAX_EDGE)
    patch: int = Field(default=14, ge=1, le=MAX_EDGE)

    @model_validator(mode="after")
    def _fits(self) -> VisionConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        if self.patch > self.edge:
            raise ValueError(f"patches of {self.patch} pixels are larger than pictures of {self.edge}")
        return self

    @property
    def tokens(self) -> int:
        """Patches of a picture, and the class token."""
        side: int = self.edge // self.patch
        return side * side + 1


class VisionTower(nn.Module):
    """Pictures -> hidden states (arXiv:2103.00020, section 2.4; Dosovitskiy et al. 2020).

    The first token is the class token. A LayerNorm precedes the blocks; the one after them is for the class token only.
    """

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.config = config
        self.first = nn.Parameter(nn.init.normal_(torch.empty(config.width), std=config.width**-0.5))
        self.patches = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=False)
        self.positions = nn.Embedding(config.tokens, config.width)
        self.norm_in = nn.LayerNorm(config.width)
        shape = (config.width, config.heads, config.width // config.heads, config.mlp, config.activation)
        self.blocks = nn.ModuleList(Block(*shape, bias=True, causal=False) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, config.projection, bias=False)

    def forward(self, pixels: Tensor, blocks: int | None = None) -> Tensor:
        """State after `blocks` blocks (None: all), without the final norm.

        Args:
            pixels: (B, 3, edge, edge), normalised.

        Returns:
            (B, tokens, width).
        """
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), 1, -1), x], dim=1)
        x = self.norm_in(x + self.positions.weight)
        for block in self.blocks[:blocks]:
            x = block(x)
        return x

    def projected(self, pixels: Tensor) -> Tensor:
        """The normed class token, projected: (B, 3, edge, edge) -> (B, projection)."""
        return self.projection(self.norm(self(pixels)[:, 0]))  # type: ignore[no-any-return]
