"""Residual blocks of the U-Net, and its plain down- and upsampling."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import Frame, PortedConv2d, PortedLinear
from ldmkit_denoisers.config import Activation
from ldmkit_denoisers.ported import activate, apply_layer, resized, zeroed

Resample = Literal["none", "down", "up"]


class ResBlock(nn.Module):
    """GroupNorm, activation, 3x3 convolution, twice, the time embedding in between (Ho et al. 2020; options: ADM).

    Args:
        inputs, outputs: channels; the shortcut is a 1x1 convolution where they differ.
        embedding: width of the (already activated) time embedding.
        groups, eps: of the norms; `groups_out` of the second, if that has another number.
        dropout: rate before the second convolution.
        scale_shift: the embedding scales and shifts the second norm (first half scale) instead of being added.
        activation: after both norms.
        output_scale: the block's output is divided by it.
        resample: "down" pools both branches 2x2, "up" repeats them to the given size; before the first convolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        *,
        groups: int = 32,
        eps: float = 1e-5,
        dropout: float = 0.0,
        scale_shift: bool = False,
        resample: Resample = "none",
        groups_out: int | None = None,
        activation: Activation = "silu",
        output_scale: float = 1.0,
    ):
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        self.activation, self.output_scale = activation, output_scale
        self.norm_1 = nn.GroupNorm(groups, inputs, eps)
        self.conv_1 = PortedConv2d(inputs, outputs, 3, padding=1)
        self.emb = PortedLinear(embedding, 2 * outputs if scale_shift else outputs)
        self.norm_2 = nn.GroupNorm(groups if groups_out is None else groups_out, outputs, eps)
        self.dropout = dropout
        self.conv_2 = zeroed(PortedConv2d(outputs, outputs, 3, padding=1))
        self.skip = PortedConv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(
        self, x: Tensor, emb: Tensor, size: tuple[int, int] | None = None, frame: Frame | None = None
    ) -> Tensor:
        """x (B, inputs, h, w), emb (B, embedding) -> (B, outputs, h2, w2); `size` is the size after an "up" block."""
        h = activate(self.norm_1(x), self.activation)
        if self.resample == "up":
            size = (2 * x.shape[2], 2 * x.shape[3]) if size is None else size
            h, x = resized(h, size), resized(x, size)
        elif self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        h = apply_layer(self.conv_1, h, frame)
        e = apply_layer(self.emb, emb, frame)[:, :, None, None]
        if self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm_2(h), scale + 1)
        else:
            h = self.norm_2(h + e)
        h = activate(h, self.activation)
        if self.dropout:
            h = F.dropout(h, self.dropout, self.training)
        h = apply_layer(self.conv_2, h, frame)
        h = h + (x if self.skip is None else apply_layer(self.skip, x, frame))
        return h if self.output_scale == 1 else h / self.output_scale


class Downsample(nn.Module):
    """Half the size: a 3x3 convolution of stride 2, or 2x2 mean pooling.

    Args:
        channels: of the map.
        conv: convolution rather than pooling.
        padding: 1 on all sides, or 0: then one row and column of zeros at the bottom and right (as DDPM's original).
    """

    def __init__(self, channels: int, conv: bool = True, padding: int = 1):
        super().__init__()
        self.padding = padding
        self.conv = PortedConv2d(channels, channels, 3, stride=2, padding=padding) if conv else None

    def forward(
        self, x: Tensor, emb: Tensor, size: tuple[int, int] | None = None, frame: Frame | None = None
    ) -> Tensor:
        if self.conv is None:
            return F.avg_pool2d(x, 2)
        return apply_layer(self.conv, x if self.padding else F.pad(x, (0, 1, 0, 1)), frame)


class Upsample(nn.Module):
    """Nearest-neighbour interpolation to the given size (the next skip's), then a 3x3 convolution if `conv`."""

    def __init__(self, channels: int, conv: bool = True):
        super().__init__()
        self.conv = PortedConv2d(channels, channels, 3, padding=1) if conv else None

    def forward(
        self, x: Tensor, emb: Tensor, size: tuple[int, int] | None = None, frame: Frame | None = None
    ) -> Tensor:
        size = (2 * x.shape[2], 2 * x.shape[3]) if size is None else size
        x = resized(x, size)
        return x if self.conv is None else apply_layer(self.conv, x, frame)
