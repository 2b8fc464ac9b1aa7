"""Sinusoidal timestep embeddings, and the two-layer network that reads them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import Frame, PortedLinear
from ldmkit_denoisers.ported import apply_layer


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
    """Linear, SiLU, Linear: (B, inputs) -> (B, outputs)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.inner = PortedLinear(inputs, outputs)
        self.outer = PortedLinear(outputs, outputs)

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        return apply_layer(self.outer, F.silu(apply_layer(self.inner, x, frame)), frame)


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


class TimeLikeMLP(nn.Module):
    """A scalar (B, 1), embedded like the timestep, then a two-layer network (the noise level of an upscaler, say)."""

    def __init__(self, dim: int, outputs: int, cos_first: bool, shift: float):
        super().__init__()
        self.dim, self.cos_first, self.shift = dim, cos_first, shift
        self.mlp = EmbeddingMLP(dim, outputs)

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        freqs = frequencies(self.dim, self.shift, x.device)
        code = sinusoidal(x[:, 0], freqs, self.dim, self.cos_first)
        return self.mlp(code.to(self.mlp.inner.weight.dtype), frame)
