"""Pre-norm transformer block shared by the text and layout encoders of this package."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import Frame, PortedLinear, attention

Activation: TypeAlias = Literal["gelu", "quick_gelu"]


class Block(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)); LayerNorm eps 1e-5.

    Args:
        width: D of the tokens.
        heads, head_dim: heads * head_dim may differ from the width.
        mlp: hidden width of the feed-forward.
        activation: exact GELU, or x * sigmoid(1.702 x).
        bias: whether the query, key and value projections have one (the output projection always has).
        causal: whether a token sees only itself and those before it.
    """

    def __init__(
        self, width: int, heads: int, head_dim: int, mlp: int, activation: Activation, *, bias: bool, causal: bool
    ):
        super().__init__()
        self.heads, self.activation, self.causal = heads, activation, causal
        inner = heads * head_dim
        self.norm1 = nn.LayerNorm(width)
        self.qkv = PortedLinear(width, 3 * inner, bias=bias)
        self.out = PortedLinear(inner, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = PortedLinear(width, mlp)
        self.fc2 = PortedLinear(mlp, width)

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        """(B, L, width) -> (B, L, width); with a frame, taps at the ports of its linear layers are called."""
        q, k, v = self.qkv(self.norm1(x), frame).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = attention(q, k, v, causal=self.causal)
        x = x + self.out(attended.transpose(1, 2).flatten(2), frame)
        return x + self.fc2(self._activate(self.fc1(self.norm2(x), frame)), frame)

    def _activate(self, x: Tensor) -> Tensor:
        return F.gelu(x) if self.activation == "gelu" else x * torch.sigmoid(1.702 * x)


class Encoder(nn.Module):
    """The text-to-image transformer of latent diffusion (arXiv:2112.10752, appendix E.2.1), without masks.

    Token and learned position embeddings, pre-norm blocks (GELU, factor 4; 8 heads of 64 for every width), a
    final LayerNorm. Padding is attended to like any token.
    """

    def __init__(self, vocab_size: int, width: int, layers: int, heads: int, head_dim: int, positions: int):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(positions, width)
        make = (Block(width, heads, head_dim, 4 * width, "gelu", bias=False, causal=False) for _ in range(layers))
        self.blocks = nn.ModuleList(make)
        self.norm = nn.LayerNorm(width)
        # With the usual 0.02 what the first block adds drowns the words: tokens begin nearly alike, and a network that
        # is trained with them notices text late. Between captions at the start: 0.29 of the norm's unit, here 0.6.
        nn.init.normal_(self.tokens.weight, std=0.5)
        nn.init.normal_(self.positions.weight, std=0.25)

    def forward(self, ids: Tensor, frame: Frame | None = None) -> Tensor:
        """(B, L) int64 ids, L <= positions -> (B, L, width)."""
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, frame)
        return self.norm(x)
