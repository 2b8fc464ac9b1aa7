"""Tensors that callers hand in."""

from __future__ import annotations

import torch
from torch import Tensor

from ldmkit.errors import InputError


def dense(tensor: Tensor, where: str | None = None) -> Tensor:
    """The tensor, checked to be dense and to have data.

    Raises:
        InputError: it is sparse, nested, quantised, or on the meta device.
    """
    if tensor.is_nested or tensor.is_quantized or tensor.is_meta or tensor.layout != torch.strided:
        kind = "nested" if tensor.is_nested else tensor.dtype if tensor.is_quantized else tensor.layout
        what = f"a tensor of layout {kind} on the device {tensor.device}"
        raise InputError("tensor-layout", what, where=where, fits="a dense tensor with data")
    return tensor


def own_floats(tensor: Tensor) -> Tensor:
    """The numbers as float32 on the CPU, in memory of their own: who gave them may write to them again."""
    return tensor.detach().to("cpu", torch.float32, copy=True)
