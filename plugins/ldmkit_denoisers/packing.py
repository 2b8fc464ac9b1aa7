"""Convolutions and linear layers with weights packed once in oneDNN's own memory order.

They run under `no_grad` only: these operators have no derivative.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldmkit import CompositionError

DTYPES = (torch.float32, torch.bfloat16)
KEPT_SIZES = 2
USUAL_ROWS = 128
"""Batch-size hint for packing a linear layer; the memory order does not depend on it."""
_NONE: tuple[str, list[float], str] = ("none", [], "")


def packable(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN packs weights of a dtype on a device."""
    return _obstacle(device, dtype) is None


def check_available(device: torch.device, dtype: torch.dtype) -> None:
    """Check that oneDNN can pack weights.

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

    oneDNN's order depends on the map's height and width, and the order for another size is up to 60 times slower:
    weights are packed at the first map of each size, and packed weights are kept for the last `KEPT_SIZES` sizes.

    Args:
        conv: provides the weights, which must not change.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        self.outputs = conv.out_channels
        self._plain, self._bias = conv.weight, conv.bias
        self._shape = ([int(conv.padding[0])] * 2, [conv.stride[0]] * 2, [1, 1], 1)
        self._packed: dict[torch.Size, Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """conv(x) + bias."""
        return self.biased(x, self._bias)

    def biased(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """conv(x) + another bias (outputs,), or none."""
        weight = self._weight(x)
        return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *self._shape, *_NONE)  # type: ignore[no-any-return]

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """conv(x) + bias + other; `other` of the output's shape is only read."""
        return torch.ops.mkldnn._convolution_pointwise.binary(  # type: ignore[no-any-return]
            x, other, self._weight(x), self._bias, *self._shape, "add", 1.0, None, [], None
        )

    def onto(self, x: Tensor, other: Tensor) -> Tensor:
        """conv(x) + bias + other, written to `other`, which must be the caller's own."""
        return torch.ops.mkldnn._convolution_pointwise_.binary(  # type: ignore[no-any-return]
            other, x, self._weight(x), self._bias, *self._shape, "add", 1.0, None, [], None
        )

    def _weight(self, x: Tensor) -> Tensor:
        found = self._packed.get(x.shape[2:])
        return self._pack(x.shape) if found is None else found

    def _pack(self, shape: torch.Size) -> Tensor:
        dense = self._plain.detach().contiguous().to_mkldnn()
        packed = torch._C._nn.mkldnn_reorder_conv2d_weight(dense, *self._shape, list(shape))
        kept = list(self._packed.items())[1 - KEPT_SIZES :]
        self._packed = {**dict(kept), shape[2:]: packed}  # replaced whole: another thread may be reading
        return packed


class PackedLinear:
    """A linear layer (..., inputs) -> (..., outputs) on packed weights.

    Args:
        weight: (outputs, inputs).
        bias: (outputs,) or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._bias = None if bias is None else bias.detach().clone()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), USUAL_ROWS)

    @classmethod
    def of(cls, linear: nn.Linear) -> PackedLinear:
        """A module's weights, packed."""
        return cls(linear.weight, linear.bias)

    @classmethod
    def stacked(cls, layers: Sequence[nn.Linear]) -> PackedLinear:
        """Several layers with one input as one: outputs one after the other."""
        biases = [layer.bias for layer in layers if layer.bias is not None]
        return cls(torch.cat([layer.weight for layer in layers]), torch.cat(biases) if biases else None)

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
