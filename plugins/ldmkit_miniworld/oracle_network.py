"""The oracle's network: one small trunk, and heads for the map, the objects, the scene and what pictures share."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ldmkit import Value
from ldmkit_miniworld.vocabulary import CLASSES, COLOURS, LAYOUT_CLASSES, OBJECTS, SEMANTIC, TIMES

SIDE = 64
"""Pixels: the oracle reads pictures of this size."""
STRIDE = 2
"""Pixels between the places at which objects are looked for."""


class OracleConfig(Value):
    """
    Args:
        widths: channels at 64, 32, 16 and 8 rows.
        features: length of the vector that pictures are compared by.
        threshold: least score of an object that counts, by kind as in `OBJECTS`.
        same: boxes of one kind that overlap by more are one object.
        scale: that features are divided by, so that those of renders have about unit variance.
    """

    widths: tuple[int, int, int, int] = (16, 48, 80, 128)
    features: int = Field(default=64, gt=1)
    threshold: tuple[float, ...] = (0.4,) * len(OBJECTS)
    same: float = Field(default=0.5, gt=0, lt=1)
    scale: float = Field(default=1.0, gt=0)


class Signs(NamedTuple):
    """What the network says of a batch; P places = 32 x 32, row by row.

    Args:
        semantic: (B, labels, 64, 64) logits.
        kinds: (B, P, objects) logits: an object of that kind is here.
        boxes: (B, P, objects, 4) corners in pixels, were there one.
        colours: (B, P, objects, colours) logits, likewise.
        label: (B, classes) logits.
        time: (B, times) logits.
        present: (B, layout classes) logits: at least one of them is in the picture.
        features: (B, features), the layer before label, time and present.
    """

    semantic: Tensor
    kinds: Tensor
    boxes: Tensor
    colours: Tensor
    label: Tensor
    time: Tensor
    present: Tensor
    features: Tensor


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def places() -> Tensor:
    """(P, 2): x and y in pixels of the places at which objects are looked for."""
    line = (torch.arange(SIDE // STRIDE) + 0.5) * STRIDE
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


class OracleNetwork(nn.Module):
    """Reads pictures (B,3,64,64) in [0,1]. A U-Net (arXiv:1505.04597) with a box for every place (FCOS,
    arXiv:1904.01355), one for each kind of object, so that neighbours of different kinds do not compete."""

    centres: Tensor

    def __init__(self, config: OracleConfig | None = None):
        super().__init__()
        self.config = config or OracleConfig()
        a, b, c, d = self.config.widths
        self.down0 = _conv(3, a)
        self.down1 = nn.Sequential(_conv(a, b, 2), _conv(b, b))
        self.down2 = nn.Sequential(_conv(b, c, 2), _conv(c, c))
        self.down3 = nn.Sequential(_conv(c, d, 2), _conv(d, d))
        self.around = nn.Linear(d, d)
        self.up2 = _conv(d + c, c)
        self.up1 = _conv(c + b, b)
        self.up0 = _conv(b + a, a)
        self.semantic = nn.Conv2d(a, len(SEMANTIC), 1)
        self.look = nn.Sequential(_conv(b, b), _conv(b, b))
        self.kinds = nn.Conv2d(b, len(OBJECTS), 1)
        self.boxes = nn.Conv2d(b, len(OBJECTS) * 4, 1)
        self.colours = nn.Conv2d(b, len(OBJECTS) * len(COLOURS), 1)
        self.features = nn.Linear(2 * d, self.config.features)
        self.label = nn.Linear(self.config.features, len(CLASSES))
        self.time = nn.Linear(self.config.features, len(TIMES))
        self.present = nn.Linear(self.config.features, len(LAYOUT_CLASSES))
        self.register_buffer("centres", places(), persistent=False)
        nn.init.constant_(self.kinds.bias, -4.0)  # objects are rare: without this the first steps only learn that

    def forward(self, images: Tensor) -> Signs:
        """What it sees in pictures (B,3,64,64) in [0,1]."""
        fine = self.down0(images * 2 - 1)
        half = self.down1(fine)
        quarter = self.down2(half)
        coarse = self.down3(quarter)
        pooled = coarse.mean((2, 3))
        coarse = F.relu(coarse + self.around(pooled)[..., None, None])
        quarter = self.up2(torch.cat([_grown(coarse), quarter], 1))
        half = self.up1(torch.cat([_grown(quarter), half], 1))
        fine = self.up0(torch.cat([_grown(half), fine], 1))
        seen = self.look(half)
        features = self.features(torch.cat([pooled, coarse.amax((2, 3))], 1))
        top = F.relu(features)
        return Signs(
            self.semantic(fine),
            _rows(self.kinds(seen), 1)[..., 0],
            self._corners(_rows(self.boxes(seen), 4)),
            _rows(self.colours(seen), len(COLOURS)),
            self.label(top),
            self.time(top),
            self.present(top),
            features / self.config.scale,
        )

    def _corners(self, sides: Tensor) -> Tensor:
        """Corners from the logarithms of the distances to left, top, right and bottom, in units of 8 pixels."""
        distance = sides.float().clamp(-5, 2.2).exp() * 8
        at = self.centres[None, :, None]
        return torch.cat([at - distance[..., :2], at + distance[..., 2:]], -1)


def _grown(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2.0, mode="nearest")


def _rows(maps: Tensor, width: int) -> Tensor:
    """(B, objects * width, h, w) as (B, h * w, objects, width)."""
    return maps.flatten(2).transpose(1, 2).unflatten(-1, (len(OBJECTS), width))
