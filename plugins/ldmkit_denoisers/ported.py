"""Small helpers shared by the blocks."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def activate(h: Tensor) -> Tensor:
    """SiLU of a tensor nobody else holds: in place where no gradient is recorded."""
    return F.silu(h, inplace=not torch.is_grad_enabled())


def zeroed(module: M) -> M:
    """The module with its parameters set to zero, so that the residual branch it ends starts as the identity."""
    for parameter in module.parameters(recurse=False):
        nn.init.zeros_(parameter)
    return module


def resized(h: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest-neighbour resize of a map (B, C, h, w); twice the size repeats every value 2 x 2 times."""
    return F.interpolate(h, size=size, mode="nearest")
