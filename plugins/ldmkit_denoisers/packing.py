"""Convolutions and linear layers with their weights in the order that oneDNN multiplies in, packed once.

A packed layer keeps no reference to the module it came from. It runs under `no_grad` only: these operators have no
derivative.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldmkit.errors import CompositionError

DTYPES = (torch.float32, torch.bfloat16)
_NONE: tuple[str, list[float], str] = ("none", [], "")


def packable(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN packs weights of a dtype on a device."""
    return _obstacle(device, dtype) is None


def check_available(device: torch.device, dtype: torch.dtype) -> None:
    """Refuse what oneDNN cannot pack.

    Raises:
        CompositionError: `plan-unavailable`: another device or dtype, or a torch built without oneDNN.
    """
    problem = _obstacle(device, dtype)
    if problem:
        raise CompositionError("plan-unavailable", problem, where="plan", fits="plan 'eager' or 'compiled'")


def _obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu":
        return f"packed weights are for the CPU, the network is on {device}"
    if dtype not in DTYPES:
        return f"packed weights are float32 or bfloat16, the network is {str(dtype).removeprefix('torch.')}"
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return "this torch was built without oneDNN"
    if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "this CPU has no instructions for bfloat16"
    return None


class PackedConv:
    """A convolution (B, inputs, h, w) -> (B, outputs, h', w') on packed weights, in the memory order of its input.

    Args:
        weight: (outputs, inputs, kh, kw).
        bias: (outputs,) or None.
        like: an input of the usual size (B, inputs, h, w); other sizes work, at some cost.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, like: Sequence[int], stride: int = 1, padding: int = 0
    ) -> None:
        self.bias = None if bias is None else bias.detach().clone()
        self._shape = ([padding] * 2, [stride] * 2, [1, 1], 1)
        dense = weight.detach().contiguous().to_mkldnn()
        self._weight = torch._C._nn.mkldnn_reorder_conv2d_weight(dense, *self._shape, list(like))

    @classmethod
    def of(cls, conv: nn.Conv2d, like: Sequence[int]) -> PackedConv:
        """A module's weights, packed."""
        return cls(conv.weight, conv.bias, like, conv.stride[0], int(conv.padding[0]))

    def __call__(self, x: Tensor) -> Tensor:
        """conv(x) + bias."""
        return torch.ops.mkldnn._convolution_pointwise(x, self._weight, self.bias, *self._shape, *_NONE)  # type: ignore[no-any-return]

    def biased(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """conv(x) + another bias (outputs,), or none."""
        return torch.ops.mkldnn._convolution_pointwise(x, self._weight, bias, *self._shape, *_NONE)  # type: ignore[no-any-return]

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """conv(x) + bias + other; `other` of the output's shape is only read."""
        return torch.ops.mkldnn._convolution_pointwise.binary(  # type: ignore[no-any-return]
            x, other, self._weight, self.bias, *self._shape, "add", 1.0, None, [], None
        )

    def onto(self, x: Tensor, other: Tensor) -> Tensor:
        """conv(x) + bias + other, written to `other`, which must be the caller's own."""
        return torch.ops.mkldnn._convolution_pointwise_.binary(  # type: ignore[no-any-return]
            other, x, self._weight, self.bias, *self._shape, "add", 1.0, None, [], None
        )


class PackedLinear:
    """A linear layer (..., inputs) -> (..., outputs) on packed weights.

    Args:
        weight: (outputs, inputs).
        bias: (outputs,) or None.
        rows: how many vectors it usually gets at once; other numbers work, at some cost.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int) -> None:
        self._bias = None if bias is None else bias.detach().clone()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)

    @classmethod
    def of(cls, linear: nn.Linear, rows: int) -> PackedLinear:
        """A module's weights, packed."""
        return cls(linear.weight, linear.bias, rows)

    @classmethod
    def stacked(cls, layers: Sequence[nn.Linear], rows: int) -> PackedLinear:
        """Several layers with one input as one: outputs one after the other."""
        biases = [layer.bias for layer in layers if layer.bias is not None]
        return cls(torch.cat([layer.weight for layer in layers]), torch.cat(biases) if biases else None, rows)

    def __call__(self, x: Tensor) -> Tensor:
        """x W^T + b."""
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, *_NONE)  # type: ignore[no-any-return]

    def gelu(self, x: Tensor) -> Tensor:
        """gelu(x W^T + b), the exact one (erf)."""
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "gelu", [], "none")  # type: ignore[no-any-return]

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """x W^T + b + other; `other` has the output's shape."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, self._bias, "add")  # type: ignore[no-any-return]

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """(x W^T + b) * other; `other` has the output's shape."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, self._bias, "mul")  # type: ignore[no-any-return]
