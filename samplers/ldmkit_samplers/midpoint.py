"""Shared by DPM2 and DPM++ 2S: a second estimate at the midpoint in log sigma, and ancestral noise after the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ldmkit import Denoise, Step
from ldmkit_samplers.first_order import ancestral
from ldmkit_samplers.heun import is_long
from ldmkit_samplers.renoised import Look


class Row(NamedTuple):
    """With x0_mid of the state at sigma `mid`: x' = x + slope (x_mid - x0_mid) + renew n, or, where slope is 0,
    x' = x0_mid + keep (x - x0_mid) + renew n. `mid` is 0 in a step to sigma 0, which takes x0."""

    mid: float
    slope: float
    keep: float
    renew: float


def plan(sigmas: Sequence[float], eta: float, slopes: bool, limit: float | None = None) -> list[Row]:
    """Coefficients of every transition. With `slopes` a step uses the noise at its midpoint, otherwise x0.

    Long steps (by a factor of more than `limit` in sigma) always use x0: the slope at the midpoint says nothing about
    the other end.
    """
    rows = []
    for sigma, after in pairwise(sigmas):
        keep, renew = ancestral(sigma, after, eta)
        mid = sigma * math.sqrt(keep)
        if mid == after > 0:  # always with eta = 1, up to rounding; `mid` must lie between two levels of the grid
            mid = math.nextafter(mid, sigma)
        held = slopes and mid > 0 and not is_long(1.0, keep, limit)
        rows.append(Row(mid, (keep - 1) * sigma / mid if held else 0.0, keep, renew))
    return rows


def transitions(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    rows: Sequence[Row],
    noise: Callable[[int], Tensor],
    look: Look | None = None,
) -> Iterator[Step]:
    """Run the plan. `Step.x0` is the estimate at the midpoint. `look` is called instead of `denoise` at the start of a
    step that does not start at x.
    """
    count = len(rows)
    for i, (mid, slope, keep, renew) in enumerate(rows):
        if look is None:
            x0 = denoise(x, sigmas[i])
        else:
            x0, x, _ = look(x, sigmas[i])
        if mid:
            ahead = torch.lerp(x0, x, mid / sigmas[i])
            x0 = denoise(ahead, mid)
            x = x.add(ahead - x0, alpha=slope) if slope else torch.lerp(x0, x, keep)
        else:
            x = torch.lerp(x0, x, keep)
        if renew:
            x.add_(noise(i), alpha=renew)
        yield Step(i, count, sigmas[i], sigmas[i + 1], x, x0)
