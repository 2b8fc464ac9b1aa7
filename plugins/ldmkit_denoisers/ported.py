"""A linear layer with a port, and small helpers shared by the blocks."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit.contracts.ports import Port
from ldmkit.contracts.step import Frame

M = TypeVar("M", bound=nn.Module)


class PortedLinear(nn.Linear):
    """A linear layer whose output passes a port (family `linear`).

    The port's value is the output (..., outputs); while taps run, `frame.scratch["input"]` is the layer's input,
    which is what a low-rank update needs.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__(inputs, outputs, bias)
        self.port = Port()

    def forward(self, x: Tensor, frame: Frame) -> Tensor:  # type: ignore[override]
        y = F.linear(x, self.weight, self.bias)
        if self.port.taps:
            frame.scratch["input"] = x
            y = self.port(y, frame)
        return y


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
