"""Attention of the U-Net: the block on maps, and the spatial transformer."""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import Frame, Port, PortedLinear, attention
from ldmkit_denoisers.ported import apply_layer, zeroed

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of an attention, (B, H, L, D) each."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, upcast: bool) -> Tensor:
    """softmax(q k^T / sqrt(D)) v: q (B,H,Lq,D), k and v (B,H,L,D), mask (B,1,1,L) True = attend -> (B, Lq, H*D).

    `upcast` computes in float32 if the tensors are narrower (SD 2.x overflows in float16 otherwise).
    """
    return attention(q, k, v, mask, upcast=upcast).transpose(1, 2).flatten(2)


def tapped(port: Port, y: Tensor, source: tuple[Tensor, Tensor, Tensor], frame: Frame) -> Tensor:
    """Pass an attention's result (B, L, C) through a port, with its operands (B, H, L, D) in `frame.scratch` under
    `query`, `key` and `value`."""
    frame.scratch.update(zip(("query", "key", "value"), source, strict=True))
    return port(y, frame)  # type: ignore[no-any-return]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, C) -> (B, heads, L, C / heads)."""
    b, length, c = x.shape
    return x.view(b, length, heads, c // heads).transpose(1, 2)


class ContextReader(Protocol):
    """A block that reads the context through keys and values, which are computed once per run.

    `index` is the place of its first pair among the network's.
    """

    @property
    def index(self) -> int: ...

    def context_layers(self) -> list[nn.Module]:
        """The layers that make keys and values of the context."""
        ...

    def context_pairs(self, tokens: Tensor, mask: Tensor | None, frame: Frame) -> list[KeysValues]:
        """Keys and values (B, H, L, D) of tokens (B, L, width); mask (B, L) True = counts."""
        ...


class SelfAttention2d(nn.Module):
    """Self-attention on a map: GroupNorm, one projection to q|k|v, attention, projection, residual.

    The rows of `qkv` are q, then k, then v, each split into heads. Ports: `attn.<path>` gets what the attention gives
    before its output projection (B, L, C), with `query`, `key` and `value` (B, H, L, D) in `frame.scratch`;
    `self.<path>` the block's output (B, C, h, w).

    Args:
        channels: of the map.
        heads: they divide the channels.
        groups: of the norm; 0 leaves the norm out.
        eps: of the norm.
        upcast: attention in float32.
    """

    def __init__(self, channels: int, heads: int, groups: int = 32, eps: float = 1e-5, upcast: bool = False):
        super().__init__()
        self.heads, self.upcast = heads, upcast
        self.norm = nn.GroupNorm(groups, channels, eps) if groups else None
        self.qkv = PortedLinear(channels, 3 * channels)
        self.out = zeroed(PortedLinear(channels, channels))
        self.attn_port, self.port = Port(channels), Port(channels)

    def forward(self, x: Tensor, frame: Frame) -> Tensor:
        b, c, h, w = x.shape
        tokens = (x if self.norm is None else self.norm(x)).flatten(2).transpose(1, 2)
        qkv = apply_layer(self.qkv, tokens, frame).view(b, h * w, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = attend(q, k, v, None, self.upcast)
        if self.attn_port.taps:
            y = tapped(self.attn_port, y, (q, k, v), frame)
        y = apply_layer(self.out, y, frame)
        x = x + y.transpose(1, 2).view(b, c, h, w)
        return self.port(x, frame) if self.port.taps else x


class Attention(nn.Module):
    """Multi-head attention of tokens, without bias in q, k, v; keys and values may come from other tokens.

    Args:
        channels: of the queries and the output.
        heads: they divide the channels.
        source: width of the tokens that keys and values are made from; None: the queries' own.
        upcast: attention in float32.
    """

    def __init__(self, channels: int, heads: int, source: int | None = None, upcast: bool = False):
        super().__init__()
        self.heads, self.upcast = heads, upcast
        source = channels if source is None else source
        self.to_q = PortedLinear(channels, channels, bias=False)
        self.to_k = PortedLinear(source, channels, bias=False)
        self.to_v = PortedLinear(source, channels, bias=False)
        self.to_out = PortedLinear(channels, channels)

    def keys_values(self, tokens: Tensor, frame: Frame) -> KeysValues:
        """Keys and values (B, H, L, D) of tokens (B, L, source)."""
        return self._split(apply_layer(self.to_k, tokens, frame)), self._split(apply_layer(self.to_v, tokens, frame))

    def forward(
        self,
        x: Tensor,
        frame: Frame,
        kv: KeysValues | None = None,
        mask: Tensor | None = None,
        port: Port | None = None,
    ) -> Tensor:
        """x (B, L, channels) -> the same shape; `port` is called before the output projection (see `tapped`)."""
        q = self._split(apply_layer(self.to_q, x, frame))
        k, v = self.keys_values(x, frame) if kv is None else kv
        y = attend(q, k, v, mask, self.upcast)
        if port is not None and port.taps:
            y = tapped(port, y, (q, k, v), frame)
        return apply_layer(self.to_out, y, frame)

    def _split(self, x: Tensor) -> Tensor:
        return split_heads(x, self.heads)


class GEGLU(nn.Module):
    """Feed-forward with a gated GELU (Shazeer 2020): first half value, second half gate, exact GELU, width 4."""

    def __init__(self, channels: int):
        super().__init__()
        self.proj = PortedLinear(channels, 8 * channels)
        self.out = PortedLinear(4 * channels, channels)

    def forward(self, x: Tensor, frame: Frame) -> Tensor:
        value, gate = apply_layer(self.proj, x, frame).chunk(2, dim=-1)
        return apply_layer(self.out, value * F.gelu(gate), frame)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward: each after a LayerNorm, each with its residual.

    Ports: `attn.<path>` gets the self-attention's result (B, L, C) before its output projection, and `cross.<path>` the
    cross-attention's, both with `query`, `key` and `value` (B, H, L, D) in `frame.scratch`; `self.<path>` the hidden
    states (B, L, C) after the self-attention's residual; `block.<path>` the residual stream (B, L, C) between the two
    attentions, which GLIGEN's gated attention adds to.

    Args:
        channels, heads, upcast: of the attentions.
        context: width of the cross-attention's tokens; None makes it a second self-attention.
        index: which of the network's cross-attentions this is: its place in the context's keys and values.
        only_cross: the first attention reads the context too; it has no `attn` port then.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        context: int | None,
        upcast: bool = False,
        index: int = 0,
        only_cross: bool = False,
    ):
        super().__init__()
        self.context_dim, self.index, self.only_cross = context, index, only_cross
        self.norm_1 = nn.LayerNorm(channels)
        self.self_attn = Attention(channels, heads, context if only_cross else None, upcast)
        self.norm_2 = nn.LayerNorm(channels)
        self.cross_attn = Attention(channels, heads, context, upcast)
        self.norm_3 = nn.LayerNorm(channels)
        self.ff = GEGLU(channels)
        self.attn_port, self.self_port, self.block_port, self.cross_port = (Port(channels) for _ in range(4))

    def forward(self, x: Tensor, frame: Frame, kv: tuple[KeysValues, ...], mask: Tensor | None) -> Tensor:
        if self.only_cross:
            x = x + self.self_attn(self.norm_1(x), frame, kv[self.index + 1], mask)
        else:
            x = x + self.self_attn(self.norm_1(x), frame, port=self.attn_port)
        if self.self_port.taps:
            x = self.self_port(x, frame)
        if self.block_port.taps:
            x = self.block_port(x, frame)
        if self.context_dim is None:
            x = x + self.cross_attn(self.norm_2(x), frame, port=self.cross_port)
        else:
            x = x + self.cross_attn(self.norm_2(x), frame, kv[self.index], mask, self.cross_port)
        return x + self.ff(self.norm_3(x), frame)

    @property
    def readers(self) -> list[Attention]:
        """The attentions that read the context, in the order of their keys and values."""
        return [self.cross_attn, self.self_attn] if self.only_cross else [self.cross_attn]

    def context_layers(self) -> list[nn.Module]:
        """See `ContextReader`."""
        return [layer for attn in self.readers for layer in (attn.to_k, attn.to_v)]

    def context_pairs(self, tokens: Tensor, mask: Tensor | None, frame: Frame) -> list[KeysValues]:
        """See `ContextReader`."""
        return [attn.keys_values(tokens, frame) for attn in self.readers]


class SpatialTransformer(nn.Module):
    """Transformer blocks on the positions of a map: GroupNorm (eps 1e-6), projection, blocks, projection, residual.

    The projections are linear layers here; layouts that store 1x1 convolutions are read as such (the maths is equal).

    Args:
        channels, heads, upcast, context: see `TransformerBlock`.
        depth: number of blocks.
        groups: of the norm.
        index: of its first block among the network's cross-attentions.
        only_cross: see `TransformerBlock`.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        depth: int = 1,
        context: int | None = None,
        groups: int = 32,
        upcast: bool = False,
        index: int = 0,
        only_cross: bool = False,
    ):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, 1e-6)
        self.proj_in = PortedLinear(channels, channels)
        places = [index + i * (1 + only_cross) for i in range(depth)]
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, heads, context, upcast, place, only_cross) for place in places
        )
        self.proj_out = zeroed(PortedLinear(channels, channels))

    def forward(self, x: Tensor, frame: Frame, kv: tuple[KeysValues, ...], mask: Tensor | None) -> Tensor:
        b, c, h, w = x.shape
        tokens = apply_layer(self.proj_in, self.norm(x).flatten(2).transpose(1, 2), frame)
        for block in self.blocks:
            tokens = block(tokens, frame, kv, mask)
        return x + apply_layer(self.proj_out, tokens, frame).transpose(1, 2).view(b, c, h, w)
