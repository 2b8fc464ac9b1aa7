"""The change of one layer's weight: added to what the layer yields, or to the weight."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import Value, without_autocast
from ldmkit_adapters.lora.forms import change_of

ZERO_AT_FIRST = ("up", "a2", "w1", "w1_a", "diff", "bias")
"""Of each form the tensor that makes a new change one of nothing."""


class LayerUpdate(Value):
    """What is changed in which layer.

    Args:
        port: of the layer, `linear.<path>` or `conv.<path>`; `conditioners.<name>.linear.<path>` of a conditioner.
        tensors: name -> shape of the tensors of a form (see `ldmkit_adapters.lora.forms`), `bias` (outputs,), and
            `magnitude`: DoRA's lengths (outputs, 1, ...) of rows, or (1, inputs, ...) of columns.
        factor: of the change: alpha / r.
        rows: (first, count) of the outputs that are changed, where a layer holds several (q, k and v); None: all.
    """

    port: str
    tensors: Mapping[str, tuple[int, ...]]
    factor: float = 1.0
    rows: tuple[int, int] | None = None


class Update(nn.Module):
    """The tensors of a `LayerUpdate`, under its names for them.

    Attributes:
        dropout: share of the layer's inputs that the change does not see in training mode.
    """

    def __init__(self, config: LayerUpdate):
        super().__init__()
        self.config = config
        self.dropout = 0.0
        for name, shape in config.tensors.items():
            parameter = nn.Parameter(torch.zeros(shape))
            if name not in ZERO_AT_FIRST:
                nn.init.uniform_(parameter, -(bound := max(math.prod(shape[1:]), 1) ** -0.5), bound)
            self.register_parameter(name, parameter)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By their names."""
        return {name: getattr(self, name) for name in self.config.tensors}

    def change(self, weight: Tensor, strength: float) -> Tensor:
        """What to add to the weight (outputs, inputs[, k, k]) at a strength; all of it, rows that stay included."""
        tensors = self.tensors
        own = weight if self.config.rows is None else weight.narrow(0, *self.config.rows)
        if not self.of_weight:
            return torch.zeros_like(weight)
        wide = {name: tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for name, tensor in tensors.items()}
        with without_autocast(weight.device):  # rounded rows have other lengths
            added = change_of(wide).reshape(own.shape) * (self.config.factor * strength)
            if "magnitude" in wide:
                added = _with_lengths(own.to(added.dtype), added, wide["magnitude"])
        return self._placed(added, weight.shape[0], 0)

    @torch.no_grad()
    def take_lengths(self, weight: Tensor) -> None:
        """Set DoRA's lengths to those of a weight, so that a change of nothing is one of nothing."""
        own = weight if self.config.rows is None else weight.narrow(0, *self.config.rows)
        lengths = self.tensors["magnitude"]
        lengths.copy_(_lengths(own.float(), lengths))

    def seen(self, x: Tensor) -> Tensor:
        """What the change sees of the layer's input."""
        return F.dropout(x, self.dropout) if self.training and self.dropout else x

    def added_bias(self, outputs: int, strength: float) -> Tensor | None:
        """What to add to the bias (outputs,), or None."""
        return self._placed(strength * self.tensors["bias"], outputs, 0) if "bias" in self.config.tensors else None

    @property
    def of_weight(self) -> bool:
        """Whether the weight is changed, and not its bias alone."""
        return self.config.tensors.keys() != {"bias"}

    @property
    def factored(self) -> bool:
        """Whether the layer's input can go through two small layers instead of one as large as itself."""
        return "down" in self.config.tensors and "magnitude" not in self.config.tensors

    def through(self, x: Tensor, layer: nn.Linear | nn.Conv2d, strength: float) -> Tensor:
        """What a factored change adds to the layer's output for an input x."""
        tensors = self.tensors
        down, up, mid = tensors["down"], tensors["up"], tensors.get("mid")
        x = x.to(down.dtype)
        if isinstance(layer, nn.Linear):
            y = F.linear(F.linear(x, down.flatten(1)), up.flatten(1))
        else:
            how = {"stride": layer.stride, "padding": layer.padding}
            if mid is None:
                y = F.conv2d(x, down, **how)  # type: ignore[arg-type]
            else:
                y = F.conv2d(F.conv2d(x, down.flatten(1)[:, :, None, None]), mid, **how)  # type: ignore[arg-type]
            y = F.conv2d(y, up.flatten(1)[:, :, None, None])
        outputs, axis = layer.weight.shape[0], -1 if isinstance(layer, nn.Linear) else 1
        return self._placed(y * (self.config.factor * strength), outputs, axis)

    def _placed(self, values: Tensor, outputs: int, axis: int) -> Tensor:
        """The values at their rows among all outputs, with zeros around them."""
        if self.config.rows is None:
            return values
        first, count = self.config.rows
        moved = F.pad(values.movedim(axis, -1), (first, outputs - first - count))
        return moved.movedim(-1, axis)


def applied(x: Tensor, layer: nn.Linear | nn.Conv2d, change: Tensor) -> Tensor:
    """What a change of the weight adds to the layer's output for an input x."""
    if isinstance(layer, nn.Linear):
        return F.linear(x.to(change.dtype), change)
    return F.conv2d(x.to(change.dtype), change, stride=layer.stride, padding=layer.padding)


def _with_lengths(weight: Tensor, added: Tensor, lengths: Tensor) -> Tensor:
    """The change that also gives rows or columns of the sum their lengths (Liu et al. 2024, DoRA, equation 5)."""
    whole = weight + added
    # a constant in the backward pass (section 4.3); divided first, so that lengths that are the norms change no bit
    norms = _lengths(whole.detach(), lengths).clamp_min(torch.finfo(whole.dtype).tiny)  # rows of zeros stay
    return whole * (lengths / norms) - weight


def _lengths(weight: Tensor, like: Tensor) -> Tensor:
    """The norms of rows or columns, over the axes that have size 1 in `like`."""
    axes = tuple(axis for axis in range(weight.ndim) if like.shape[axis] == 1)
    return torch.linalg.vector_norm(weight, dim=axes, keepdim=True)
