"""Gradients inside a sampling run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradient(value: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Gradient of sum(value(x)) at x, whatever grad mode the caller is in; x itself is not touched."""
    with torch.inference_mode(False), torch.enable_grad():
        free = x.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(value(free).sum(), free)
    return slope
