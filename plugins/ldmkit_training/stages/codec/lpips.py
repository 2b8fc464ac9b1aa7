"""LPIPS (Zhang et al. 2018): distance between features of a classification network, from local weight files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from ldmkit_checkpoints.torchfile.state_dict import SUFFIXES, open_state_dict
from torch import Tensor, nn

from ldmkit import Example, InputError, LazyTensor, Perceptual, Value
from ldmkit.models.weights import assign, open_safetensors

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's channel means and deviations, for pictures in [-1,1]."""

EPS = 1e-10


class Conv(NamedTuple):
    """A convolution with ReLU: its index among torchvision's `features`, channels out, and geometry."""

    index: int
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


class Backbone(NamedTuple):
    """Convolutions in stages: features are read at the end of each stage, with pooling in between."""

    stages: tuple[tuple[Conv, ...], ...]
    pool: tuple[int, int] = (2, 2)
    pooled: tuple[int, ...] = (1, 2, 3, 4)


BACKBONES: dict[str, Backbone] = {
    "vgg": Backbone(
        (
            (Conv(0, 64), Conv(2, 64)),
            (Conv(5, 128), Conv(7, 128)),
            (Conv(10, 256), Conv(12, 256), Conv(14, 256)),
            (Conv(17, 512), Conv(19, 512), Conv(21, 512)),
            (Conv(24, 512), Conv(26, 512), Conv(28, 512)),
        )
    ),
    "alex": Backbone(
        (
            (Conv(0, 64, 11, 4, 2),),
            (Conv(3, 192, 5, 1, 2),),
            (Conv(6, 384),),
            (Conv(8, 256),),
            (Conv(10, 256),),
        ),
        pool=(3, 2),
        pooled=(1, 2),
    ),
}


class LPIPSConfig(Value):
    """Args:
    backbone: `vgg` (VGG-16, which codecs are trained with) or `alex` (AlexNet, the usual one for reporting).
    """

    backbone: Literal["vgg", "alex"] = "vgg"


class LPIPS(Perceptual):
    """Squared differences of channel-normed features, weighed by a learned number a channel; mean over places.

    Until files are loaded, channels weigh the same and the features are those of random filters.

    `load_files` takes torchvision's file of the backbone (`features.N.weight`, `features.N.bias`; its classifier is
    left out) and the file of the learned weights (`lin0.model.1.weight` ...), or one file with both, also with the
    backbone under `net.slice1.0.weight` as in checkpoints of first stages, and with a prefix before all keys.
    """

    Config = LPIPSConfig
    config: LPIPSConfig
    examples = (Example({"backbone": "alex"}),)

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.backbone = BACKBONES[self.config.backbone]
        inner, layers = 3, {}
        for conv in (conv for stage in self.backbone.stages for conv in stage):
            layers[str(conv.index)] = nn.Conv2d(inner, conv.channels, conv.kernel, conv.stride, conv.padding)
            inner = conv.channels
        self.features = nn.ModuleDict(layers)
        widths = [stage[-1].channels for stage in self.backbone.stages]
        self.lin = nn.ParameterList([nn.Parameter(torch.full((1, width, 1, 1), 1 / width)) for width in widths])

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        mine = self._features(images.to(self.dtype))
        with torch.no_grad():
            wanted = self._features(reference.to(self.dtype))
        found = images.new_zeros(images.shape[0], dtype=torch.float32)
        for weight, a, b in zip(self.lin, mine, wanted, strict=True):
            found = found + (weight * (a - b).square()).sum(1).mean((1, 2))
        return found

    def _features(self, images: Tensor) -> list[Tensor]:
        x, found = (images - images.new_tensor(SHIFT).view(3, 1, 1)) / images.new_tensor(SCALE).view(3, 1, 1), []
        for index, stage in enumerate(self.backbone.stages):
            if index in self.backbone.pooled:
                x = F.max_pool2d(x, *self.backbone.pool)
            for conv in stage:
                x = F.relu(self.features[str(conv.index)](x))
            wide = x.float()
            # the norm's gradient at 0 is 0, where that of a square root would not be finite
            found.append(wide / (torch.linalg.vector_norm(wide, dim=1, keepdim=True) + EPS))
        return found

    def load_files(self, files: Sequence[Path]) -> None:
        if not files:
            fits = "torchvision's file of the backbone, and the file of the learned weights"
            raise InputError("perceptual-files", "LPIPS has no weights of its own", where="perceptual.files", fits=fits)
        found: dict[str, LazyTensor] = {}
        for path in files:
            found |= {name: tensor for key, tensor in _open(path).items() if (name := _native(key)) is not None}
        assign(self, found, f"LPIPS from {', '.join(map(str, files))}", dtype=torch.float32)


def _open(path: Path) -> Mapping[str, LazyTensor]:
    return open_state_dict(path)[0] if path.suffix in SUFFIXES else open_safetensors(path)


def _native(key: str) -> str | None:
    """ldmkit's name for a published key; None for keys that the distance does not use."""
    *before, last = key.split(".")
    if last not in ("weight", "bias") or not before:
        return None
    lin = next((name for name in before if name.startswith("lin") and name[3:].isdecimal()), None)
    if lin is not None:
        return f"lin.{lin[3:]}"
    inside = "features" in before or any(name.startswith("slice") for name in before)
    return f"features.{before[-1]}.{last}" if inside and before[-1].isdecimal() else None
