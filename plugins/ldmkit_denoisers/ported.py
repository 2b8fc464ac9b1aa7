"""Small helpers shared by the blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import Frame, PortedConv2d, PortedLinear
from ldmkit_denoisers.config import Activation

M = TypeVar("M", bound=nn.Module)

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "relu": F.relu,
    "mish": F.mish,
}
"""Activations by name; GELU is the exact one (erf)."""


def apply_layer(layer: nn.Module, x: Tensor, frame: Frame | None) -> Tensor:
    """The output of a layer, through its port if it has one (a wrapper or a quantised layer in its place has none)."""
    if isinstance(layer, (PortedLinear, PortedConv2d)):
        return layer(x, frame)  # type: ignore[no-any-return]
    return layer(x)  # type: ignore[no-any-return]


def passed(port: nn.Module, value: Tensor, source: Tensor, frame: Frame) -> Tensor:
    """The value past a port whose taps also read what it was made from, as `frame.scratch["input"]`."""
    frame.scratch["input"] = source
    return port(value, frame)  # type: ignore[no-any-return]


def activate(h: Tensor, kind: Activation = "silu") -> Tensor:
    """The activation of a tensor that nothing else refers to: SiLU in place unless gradients are recorded."""
    if kind == "silu":
        return F.silu(h, inplace=not torch.is_grad_enabled())
    return ACTIVATIONS[kind](h)


def zeroed(module: M) -> M:
    """The module with its parameters set to zero, so that the residual branch it ends starts as the identity."""
    for parameter in module.parameters(recurse=False):
        nn.init.zeros_(parameter)
    return module


def resized(h: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest-neighbour resize of a map (B, C, h, w); twice the size repeats every value 2 x 2 times."""
    return F.interpolate(h, size=size, mode="nearest")
