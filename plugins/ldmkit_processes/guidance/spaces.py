"""Spaces in which estimates are combined (x0, or the network's output), and rescaling of the guided estimate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ldmkit import CompositionError, Evaluate

Space: TypeAlias = Literal["x0", "output"]
"""Where estimates are combined: as x0, or as the network's own output (noise, v, velocity). Rules that are linear in
them give the same result in both; other rules do not, so they declare which is meant."""


def check_droppable(scale: float, names: Sequence[str]) -> None:
    """Check that a scale has a meaning: some condition can be left out.

    Raises:
        CompositionError: `no-null`.
    """
    if scale != 1 and not names:
        what = f"no condition of this model can be left out, so a scale of {scale:g} has no meaning"
        raise CompositionError("no-null", what, where="guidance", fits="guidance 'none' or 1")


def as_output(evaluate: Evaluate, x: Tensor, sigma: float, x0: Tensor) -> Tensor:
    """The network's output for an x0 estimate: the inverse of x0 = skip x + out F."""
    skip, out, _ = evaluate.process.scalings(sigma)
    return (x0 - x * skip) / out


def as_x0(evaluate: Evaluate, x: Tensor, sigma: float, output: Tensor) -> Tensor:
    """x0 = skip x + out F."""
    skip, out, _ = evaluate.process.scalings(sigma)
    return x * skip + output * out


def rescaled(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """`guided` (B, ...) with its standard deviation per sample moved by `share` towards that of `conditional`."""
    axes = tuple(range(1, guided.ndim))
    ratio = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    return guided * torch.lerp(torch.ones_like(ratio), ratio, share)


def rescaled_in(
    space: Space, evaluate: Evaluate, x: Tensor, sigma: float, guided: Tensor, conditional: Tensor, share: float
) -> Tensor:
    """x0 estimates rescaled by `rescaled` in a space; returns an x0 estimate."""
    if space == "x0":
        return rescaled(guided, conditional, share)
    outputs = (as_output(evaluate, x, sigma, estimate) for estimate in (guided, conditional))
    return as_x0(evaluate, x, sigma, rescaled(*outputs, share))
