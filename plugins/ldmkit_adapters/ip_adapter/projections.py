"""What makes an encoder's states the image tokens of an IP-Adapter: (N, length, source) -> (N, tokens, dim)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import attention


class Plain(nn.Module):
    """One embedding to several tokens: a linear layer, and a LayerNorm of each token."""

    def __init__(self, source: int, tokens: int, dim: int):
        super().__init__()
        self.tokens = tokens
        self.proj = nn.Linear(source, tokens * dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, source) -> (N, tokens, dim)."""
        return self.norm(self.proj(x[:, 0]).unflatten(1, (self.tokens, -1)))  # type: ignore[no-any-return]


class Full(nn.Module):
    """Every token of the encoder by itself, through two layers and a LayerNorm."""

    def __init__(self, source: int, dim: int):
        super().__init__()
        self.fc1 = nn.Linear(source, source)
        self.fc2 = nn.Linear(source, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, length, source) -> (N, length, dim)."""
        return self.norm(self.fc2(F.gelu(self.fc1(x))))  # type: ignore[no-any-return]


class ResamplerLayer(nn.Module):
    """Latents attend to the picture's tokens and to themselves (Alayrac et al. 2022, Flamingo), then a feed-forward."""

    def __init__(self, width: int, heads: int, head_dim: int, mlp: int):
        super().__init__()
        self.heads, inner = heads, heads * head_dim
        self.norm_x, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q = nn.Linear(width, inner, bias=False)
        self.kv = nn.Linear(width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, mlp, bias=False)
        self.fc2 = nn.Linear(mlp, width, bias=False)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        """Tokens (N, L, width) and latents (N, tokens, width) -> latents."""
        own = self.norm_latents(latents)
        q = self.q(own).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        both = self.kv(torch.cat([self.norm_x(x), own], dim=1))
        k, v = both.unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        latents = latents + self.out(attention(q, k, v).transpose(1, 2).flatten(2))
        return latents + self.fc2(F.gelu(self.fc1(self.norm(latents))))  # type: ignore[no-any-return]


class Resampler(nn.Module):
    """A few latents that read all tokens of a picture."""

    def __init__(self, source: int, tokens: int, dim: int, width: int, heads: int, head_dim: int, mlp: int, depth: int):
        super().__init__()
        self.latents = nn.Parameter(nn.init.normal_(torch.empty(1, tokens, width), std=width**-0.5))
        self.proj_in = nn.Linear(source, width)
        self.layers = nn.ModuleList(ResamplerLayer(width, heads, head_dim, mlp) for _ in range(depth))
        self.proj_out = nn.Linear(width, dim)
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, length, source) -> (N, tokens, dim)."""
        x, latents = self.proj_in(x), self.latents.expand(len(x), -1, -1)
        for layer in self.layers:
            latents = layer(x, latents)
        return self.norm_out(self.proj_out(latents))  # type: ignore[no-any-return]
