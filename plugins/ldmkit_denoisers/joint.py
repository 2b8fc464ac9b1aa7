"""Joint attention of the U-Net: one softmax over the context and the map (DeepFloyd IF, unCLIP, Kandinsky)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import Frame, Port, PortedLinear
from ldmkit_denoisers.attention import KeysValues, attend, split_heads, tapped
from ldmkit_denoisers.ported import apply_layer, zeroed


class JointAttention2d(nn.Module):
    """Attention of a map's positions to the context and to one another: GroupNorm, attention, projection, residual.

    Keys and values are the context's, then the map's. Ports: `joint.<path>` gets what the attention gives before its
    output projection (B, h*w, C), with `query`, `key` and `value` (B, H, L, D) in `frame.scratch`; `self.<path>` the
    block's output (B, C, h, w).

    Args:
        channels: of the map.
        heads: they divide the channels.
        context: width of the context's tokens.
        groups: of the map's norm, with eps 1e-5.
        context_groups: of the tokens' norm, over the tokens that the mask keeps; None: no norm.
        only_cross: keys and values are the context's alone.
        index: its place in the context's keys and values.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        context: int,
        *,
        groups: int = 32,
        context_groups: int | None = None,
        only_cross: bool = False,
        index: int = 0,
    ):
        super().__init__()
        self.heads, self.index, self.only_cross = heads, index, only_cross
        self.norm = nn.GroupNorm(groups, channels, 1e-5)
        self.context_norm = TokenNorm(context_groups, context, 1e-5) if context_groups else None
        self.to_q = PortedLinear(channels, channels)
        self.to_k, self.to_v = (None if only_cross else PortedLinear(channels, channels) for _ in range(2))
        self.context_k, self.context_v = PortedLinear(context, channels), PortedLinear(context, channels)
        self.to_out = zeroed(PortedLinear(channels, channels))
        self.joint_port, self.port = Port(channels), Port(channels)

    def forward(self, x: Tensor, frame: Frame, kv: tuple[KeysValues, ...], mask: Tensor | None) -> Tensor:
        """x (B, C, h, w); `kv` from `context_pairs`; mask (B, 1, 1, L) of the context, True = attend."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q = split_heads(apply_layer(self.to_q, tokens, frame), self.heads)
        own = None
        if self.to_k is not None and self.to_v is not None:
            own = tuple(split_heads(apply_layer(layer, tokens, frame), self.heads) for layer in (self.to_k, self.to_v))
        y = self.attended(q, own, kv, mask, frame)
        y = apply_layer(self.to_out, y, frame)
        x = x + y.transpose(1, 2).view(x.shape)
        return self.port(x, frame) if self.port.taps else x

    def attended(
        self, q: Tensor, own: tuple[Tensor, ...] | None, kv: tuple[KeysValues, ...], mask: Tensor | None, frame: Frame
    ) -> Tensor:
        """The result (B, h*w, C) of queries for the context's keys and values and the map's own, if it has them."""
        k, v = kv[self.index]
        if own is not None:
            k, v = torch.cat([k, own[0]], dim=2), torch.cat([v, own[1]], dim=2)
            mask = None if mask is None else F.pad(mask, (0, own[0].shape[2]), value=True)
        y = attend(q, k, v, mask, upcast=False)
        return tapped(self.joint_port, y, (q, k, v), frame) if self.joint_port.taps else y

    def context_layers(self) -> list[nn.Module]:
        """See `ContextReader`."""
        return [self.context_k, self.context_v]

    def context_pairs(self, tokens: Tensor, mask: Tensor | None, frame: Frame) -> list[KeysValues]:
        """See `ContextReader`."""
        if self.context_norm is not None:
            tokens = self.context_norm(tokens, mask)
        k, v = (
            split_heads(apply_layer(layer, tokens, frame), self.heads) for layer in (self.context_k, self.context_v)
        )
        return [(k, v)]


class TokenNorm(nn.GroupNorm):
    """A GroupNorm of tokens (B, L, width) over the channels of a group and the tokens that the mask (B, L) keeps.

    Statistics are of the kept tokens alone, so that padding to a longer batch mate changes nothing.
    """

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, L, width) -> the same shape."""
        if mask is None:
            return super().forward(tokens.transpose(1, 2)).transpose(1, 2)
        grouped = tokens.unflatten(-1, (self.num_groups, -1))
        share = mask.to(tokens.dtype)[:, :, None, None]
        count = share.sum(1, keepdim=True).clamp(min=1) * grouped.shape[-1]
        mean = (grouped * share).sum((1, 3), keepdim=True) / count
        variance = ((grouped - mean).square() * share).sum((1, 3), keepdim=True) / count
        normed = (grouped - mean) * (variance + self.eps).rsqrt()
        return normed.flatten(2) * self.weight + self.bias
