"""Scaled dot-product attention with a suitable precision for each device, and layers with a port."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit.contracts.ports import Port
from ldmkit.contracts.step import Frame

_NARROW = (torch.float16, torch.bfloat16)


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False, upcast: bool = False
) -> Tensor:
    """softmax(q k^T / sqrt(D)) v in q's dtype: q (B,H,Lq,D), k and v (B,H,L,D) -> (B,H,Lq,D).

    Args:
        mask: (B,1,1,L) or (B,1,Lq,L) bool, True = attend; None attends to all positions.
        causal: each position attends only to itself and earlier positions.
        upcast: compute half-precision inputs in float32, also under autocast (SD 2.x overflows in float16 otherwise).
    """
    # on the CPU the backward pass is 3 to 7 times slower in bfloat16 than in float32, including the conversion
    trained_on_cpu = q.device.type == "cpu" and (q.requires_grad or k.requires_grad or v.requires_grad)
    if q.dtype in _NARROW and (upcast or trained_on_cpu):
        with without_autocast(q.device):
            wide = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask, is_causal=causal)
        return wide.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context manager that disables autocast; the meta device does not support it."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


class PortedLinear(nn.Linear):
    """A linear layer with a port on its output (`linear.<path>`) and the state-dict keys of `nn.Linear`.

    The port's value is the output (..., outputs). While taps run, `frame.scratch["input"]` is the layer's input and
    `frame.scratch["layer"]` the layer itself, which updates of its weight need. Without a frame (a conditioner called
    outside of a pipeline) taps are not called.
    """

    port: Port

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__(inputs, outputs, bias)
        _own_port(self, outputs)

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        return _tapped(self, x, y, frame) if self.port.taps and frame is not None else y


class PortedConv2d(nn.Conv2d):
    """A convolution whose output passes a port (family `conv`), with the same in `frame.scratch` as `PortedLinear`."""

    port: Port

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0):
        super().__init__(inputs, outputs, kernel, stride, padding)
        _own_port(self, outputs)

    def forward(self, x: Tensor, frame: Frame | None = None) -> Tensor:
        y = self._conv_forward(x, self.weight, self.bias)
        return _tapped(self, x, y, frame) if self.port.taps and frame is not None else y


PortedLayer: TypeAlias = PortedLinear | PortedConv2d


def _own_port(layer: nn.Module, width: int) -> None:
    """Give a layer its port as a plain attribute: as a submodule, a hundred of them slow down loading and each call."""
    object.__setattr__(layer, "port", Port(width))


def ports_in(module: nn.Module) -> Iterator[Port]:
    """Every port below a module: those that are submodules, and those of its ported layers."""
    for part in module.modules():
        if isinstance(part, Port):
            yield part
        elif isinstance(part, PortedLinear | PortedConv2d):
            yield part.port


def _tapped(layer: PortedLayer, x: Tensor, y: Tensor, frame: Frame) -> Tensor:
    frame.scratch["input"], frame.scratch["layer"] = x, layer
    return layer.port(y, frame)  # type: ignore[no-any-return]


def layer_ports(module: nn.Module) -> dict[str, Port]:
    """`linear.<path>` and `conv.<path>` -> the port of every ported layer below a module, by the layer's path in it."""
    layers = ((path, part) for path, part in module.named_modules() if isinstance(part, PortedConv2d))
    return linear_ports(module) | {f"conv.{path}": part.port for path, part in layers}


def linear_ports(module: nn.Module) -> dict[str, Port]:
    """`linear.<path>` -> port, for every `PortedLinear` in a module; <path> is the layer's path."""
    layers = ((path, part) for path, part in module.named_modules() if isinstance(part, PortedLinear))
    return {f"linear.{path}": part.port for path, part in layers}


def layer_of(module: nn.Module, ports: Mapping[str, Port], name: str) -> nn.Linear | nn.Conv2d | None:
    """The layer of a port `linear.<path>` or `conv.<path>`: the one that owns the port, or the layer at that path."""
    for part in module.modules():
        if isinstance(part, PortedLinear | PortedConv2d) and part.port is ports[name]:
            return part
    family, _, path = name.partition(".")
    named = dict(module.named_modules()).get(path)
    return named if isinstance(named, nn.Linear if family == "linear" else nn.Conv2d) else None
