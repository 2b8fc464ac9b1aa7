"""Timestep embeddings, sinusoidal or from a table, and the two-layer network that reads them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import Frame, InputError, PortedLinear, attention
from ldmkit_denoisers.config import Activation
from ldmkit_denoisers.ported import ACTIVATIONS, apply_layer


def frequencies(dim: int, shift: float = 0.0, device: torch.device | None = None) -> Tensor:
    """The dim // 2 frequencies exp(-ln(10000) i / (dim // 2 - shift)), float32 ("Attention is all you need", 3.5)."""
    half = dim // 2
    exponent = -math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=device)
    return torch.exp(exponent / (half - shift))


def sinusoidal(t: Tensor, freqs: Tensor, dim: int, cos_first: bool = True) -> Tensor:
    """Sinusoidal embeddings (B, dim) of times (B,), computed in float32; an odd dim ends with a zero column.

    Args:
        t: (B,) times in units of training steps.
        freqs: (dim // 2,) from `frequencies`.
        dim: width of the embedding.
        cos_first: [cos | sin] rather than [sin | cos].
    """
    angles = t.to(torch.float32)[:, None] * freqs
    pair = (angles.cos(), angles.sin()) if cos_first else (angles.sin(), angles.cos())
    code = torch.cat(pair, dim=1)
    return F.pad(code, (0, 1)) if dim % 2 else code


class EmbeddingMLP(nn.Module):
    """Linear, activation, Linear: (B, inputs) -> (B, outputs)."""

    def __init__(self, inputs: int, outputs: int, activation: Activation = "silu"):
        super().__init__()
        self.activation = activation
        self.inner = PortedLinear(inputs, outputs)
        self.outer = PortedLinear(outputs, outputs)

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        return apply_layer(self.outer, ACTIVATIONS[self.activation](apply_layer(self.inner, x, frame)), frame)


class ClassTable(nn.Module):
    """One learned vector per class: ids (B, 1), of any numeric type, are rounded to the nearest class -> (B, outputs).

    Ids must reach it in a dtype that holds them exactly (float32 or an integer; bfloat16 stops at 256).
    """

    def __init__(self, classes: int, outputs: int):
        super().__init__()
        self.table = nn.Embedding(classes, outputs)

    def forward(self, ids: Tensor) -> Tensor:
        whole = ids.round() if ids.is_floating_point() else ids
        return self.table(whole[:, 0].long())


class TimeTable(nn.Module):
    """One learned vector per timestep: times (B,), rounded to the nearest row -> (B, outputs)."""

    def __init__(self, steps: int, outputs: int):
        super().__init__()
        self.table = nn.Embedding(steps, outputs)

    def forward(self, t: Tensor) -> Tensor:
        """
        Raises:
            InputError: `time-range`: a time beyond the table.
        """
        rows, last = t.round().long(), self.table.num_embeddings - 1
        watched = t.device.type == "cpu" and not torch.compiler.is_compiling()  # elsewhere the lookup itself fails
        if watched and bool(((rows < 0) | (rows > last)).any()):
            what = f"time {float(t.min()):g} to {float(t.max()):g} for a table of {last + 1} timesteps"
            raise InputError("time-range", what, where="t", fits=f"0 to {last}")
        return self.table(rows)


class TimeLikeMLP(nn.Module):
    """A scalar (B, 1), embedded like the timestep, then a two-layer network (the noise level of an upscaler, say)."""

    def __init__(self, dim: int, outputs: int, cos_first: bool, shift: float, activation: Activation = "silu"):
        super().__init__()
        self.dim, self.cos_first, self.shift = dim, cos_first, shift
        self.mlp = EmbeddingMLP(dim, outputs, activation)

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        freqs = frequencies(self.dim, self.shift, x.device)
        code = sinusoidal(x[:, 0], freqs, self.dim, self.cos_first)
        return self.mlp(code.to(self.mlp.inner.weight.dtype), frame)


class TokenPool(nn.Module):
    """Attention pool of tokens, between LayerNorms: (B, L, width) -> (B, outputs) (DeepFloyd IF).

    The mean of the tokens, with a learned position, asks the mean and all tokens.
    """

    def __init__(self, width: int, outputs: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_in = nn.LayerNorm(width)
        self.position = nn.Parameter(nn.init.normal_(torch.empty(1, width), std=width**-0.5))
        self.to_q, self.to_k, self.to_v = (PortedLinear(width, width) for _ in range(3))
        self.proj = PortedLinear(width, outputs)
        self.norm_out = nn.LayerNorm(outputs)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, frame: Frame | None = None) -> Tensor:
        """tokens (B, L, width), mask (B, L) True = counts."""
        tokens = self.norm_in(tokens)
        if mask is None:
            mean = tokens.mean(1, keepdim=True)
        else:
            share = mask.to(tokens.dtype)[..., None]
            mean = (tokens * share).sum(1, keepdim=True) / share.sum(1, keepdim=True).clamp(min=1)
            mask = F.pad(mask, (1, 0), value=True)[:, None, None]
        mean = mean + self.position
        everything = torch.cat([mean, tokens], dim=1)
        pairs = ((self.to_q, mean), (self.to_k, everything), (self.to_v, everything))
        q, k, v = (apply_layer(layer, x, frame).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer, x in pairs)
        pooled = attention(q, k, v, mask, upcast=True).transpose(1, 2).flatten(2)[:, 0]
        return self.norm_out(apply_layer(self.proj, pooled, frame))


class NormedProjection(nn.Module):
    """A linear layer and, unless `normed` is false, a LayerNorm: a picture's embedding (B, inputs) -> (B, outputs), or
    `tokens` of that width."""

    def __init__(self, inputs: int, outputs: int, tokens: int | None = None, normed: bool = True):
        super().__init__()
        self.tokens = tokens
        self.proj = PortedLinear(inputs, outputs * (tokens or 1))
        self.norm = nn.LayerNorm(outputs) if normed else nn.Identity()

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        y = apply_layer(self.proj, x, frame)
        return self.norm(y if self.tokens is None else y.unflatten(1, (self.tokens, -1)))
