"""The patch discriminator of Isola et al. 2017 and its losses."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import InputError

Norm: TypeAlias = Literal["batch", "group", "none"]
GanLoss: TypeAlias = Literal["hinge", "vanilla"]

GROUP = 8
"""Channels per group."""


class PatchDiscriminator(nn.Module):
    """Pictures (B,3,H,W) -> logits (B,1,h,w), each of a patch: positive for real ones.

    4x4 convolutions with padding 1, `layers` of stride 2 and two of stride 1, LeakyReLU 0.2 between; all but the
    first and the last have a norm. Weights are drawn from N(0, 0.02), the norms' from N(1, 0.02).

    Raises:
        InputError: `discriminator-size`: pictures that are too small for so many layers.
    """

    def __init__(self, layers: int = 3, width: int = 64, norm: Norm = "batch", channels: int = 3):
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        inner = width
        for layer in range(1, layers + 1):
            outer = width * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            parts += [nn.Conv2d(inner, outer, 4, stride, padding=1, bias=norm == "none")]
            parts += [_norm(norm, outer), nn.LeakyReLU(0.2)]
            inner = outer
        self.main = nn.Sequential(*parts, nn.Conv2d(inner, 1, 4, padding=1))
        self.layers, self.smallest = layers, _smallest(layers)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        if min(images.shape[-2:]) < self.smallest:
            what = f"pictures of {images.shape[-2]} x {images.shape[-1]} are too small for its {self.layers} layers"
            fits = f"sides of {self.smallest} and more, or fewer layers"
            raise InputError("discriminator-size", what, where="objective.discriminator", fits=fits)
        return self.main(images)


def _smallest(layers: int) -> int:
    """Side of the smallest picture that gives a logit."""
    side = 3
    for _ in range(layers):
        side *= 2
    return side


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(channels // GROUP, channels) if kind == "group" else nn.Identity()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
        nn.init.normal_(module.weight, 1.0, 0.02)


def discriminator_loss(real: Tensor, fake: Tensor, kind: GanLoss = "hinge") -> Tensor:
    """Scalar loss of the logits of real and generated pictures: hinge (Lim & Ye 2017), or Goodfellow et al. 2014."""
    if kind == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def generator_loss(fake: Tensor) -> Tensor:
    """The codec's adversarial loss, for both kinds: minus the mean logit of its reconstructions."""
    return -fake.mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: nn.Parameter) -> Tensor:
    """|grad reconstruction| / (|grad adversarial| + 1e-4) on the codec's last layer, at most 1e4: a scalar without
    gradient (Esser et al. 2021, equation 7). Several processes use the gradients of all their rows."""
    (wanted,) = torch.autograd.grad(reconstruction, last, retain_graph=True)
    (other,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    wanted, other = _everywhere(wanted.float()), _everywhere(other.float())
    return (wanted.norm() / (other.norm() + 1e-4)).clamp(0.0, 1e4).detach()


def _everywhere(value: Tensor) -> Tensor:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    distributed.all_reduce(value)
    return value / distributed.get_world_size()
