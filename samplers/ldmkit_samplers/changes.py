"""Shared by samplers that extrapolate x0 from its past changes: UniPC, and DPM++ 3M in its two forms."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ldmkit import Denoise, Step
from ldmkit_samplers.heun import LONG_STEP, is_long


class Row(NamedTuple):
    """x' = x0 + keep (x - x0) + sum_k weights_k change_k + renew n; x0's changes from step to step, newest first."""

    keep: float
    weights: tuple[float, ...]
    renew: float


def plus(x: Tensor, changes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Add the weighted changes to x in place; stops at the shorter of both sequences."""
    for change, weight in zip(changes, weights, strict=False):
        x.add_(change, alpha=weight)
    return x


class Orders(NamedTuple):
    """How steps with fewer than three estimates are computed.

    Args:
        midpoint: with two estimates, x0 is held constant at the midpoint in log sigma; otherwise integrated, as with
            three.
        lowered: in runs of fewer steps than this, the second-to-last step uses two estimates.
        limit: a step whose ratio of sigmas is larger uses one estimate; None: no limit.
    """

    midpoint: bool = False
    lowered: int = 0
    limit: float | None = LONG_STEP


PUBLISHED = Orders()


def plan(sigmas: Sequence[float], eta: float, curvature: float, orders: Orders = PUBLISHED) -> list[Row]:
    """Exponential multistep of up to three x0 estimates, h = log(sigma / sigma'), H = (1 + eta) h.

    x0 is extrapolated as x0 + x0' h + x0'' h^2 / 2. The exact weight of h^2 x0'' is 1/2 - phi_2 / H with
    phi_2 = 1 + (e^-H - 1) / H; the term h^2 x0'' / 2 gets `curvature` times that weight, so a curvature of 2 is exact.
    Long steps use x0 without extrapolation, because the past estimates cover only a small part of such a step.
    """
    rows: list[Row] = []
    past: list[float] = []  # steps in log sigma before this one, newest first
    count = len(sigmas) - 1
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        if after == 0:
            rows.append(Row(0.0, (), 0.0))
            break
        h = math.log(sigma / after)
        whole = (1 + eta) * h
        phi = 1 + math.expm1(-whole) / whole
        usable = 1 if i == count - 2 and count < orders.lowered else 2
        before = [] if is_long(sigma, after, orders.limit) else [step / h for step in past[:usable]]
        weights: tuple[float, ...] = ()
        if before:
            weights = (phi / before[0],)
        if len(before) == 1 and orders.midpoint:
            weights = (-math.expm1(-whole) / (2 * before[0]),)
        if len(before) == 2:
            near, far = before
            bend = (phi * near + curvature * (0.5 - phi / whole)) / (near + far)
            weights = (weights[0] + bend / near, -bend / far)
        rows.append(Row(math.exp(-whole), weights, after * math.sqrt(-math.expm1(-2 * eta * h))))
        past = [h, *past[:1]]
    return rows


def transitions(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], rows: Sequence[Row], noise: Callable[[int], Tensor]
) -> Iterator[Step]:
    """Run the plan."""
    count, before = len(rows), x
    changes: deque[Tensor] = deque(maxlen=2)
    for i, (keep, weights, renew) in enumerate(rows):
        x0 = denoise(x, sigmas[i])
        if i:
            changes.appendleft(x0 - before)
        x = plus(torch.lerp(x0, x, keep), changes, weights)
        if renew:
            x.add_(noise(i), alpha=renew)
        before = x0
        yield Step(i, count, sigmas[i], sigmas[i + 1], x, x0)
