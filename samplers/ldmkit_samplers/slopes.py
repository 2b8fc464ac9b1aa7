"""Shared by samplers that combine the slopes of past steps: PLMS, IPNDM, LMS, DEIS.

A slope is x - x0 of a step, sigma times the noise that the network predicts. Each transition is
x' = x0 + sum_j keep_j (x - x0)_j, newest first; with one slope it is an Euler step.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from torch import Tensor

from ldmkit import Denoise, Step
from ldmkit_samplers.heun import is_long

ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Weights of the newest, second newest ... slope by how many are at hand (Liu et al. 2022, PNDM, equation 12)."""

NODES, WEIGHTS = (values.tolist() for values in np.polynomial.legendre.leggauss(16))
"""Gauss-Legendre quadrature on [-1, 1]: exact for LMS, to rounding for DEIS over a step that is not long."""


def transitions(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], rows: Sequence[Sequence[float]]
) -> Iterator[Step]:
    """Run the rows of one of the plans below."""
    count = len(rows)
    slopes: deque[Tensor] = deque(maxlen=max(len(row) for row in rows))
    for i, row in enumerate(rows):
        x0 = denoise(x, sigmas[i])
        slopes.appendleft(x - x0)
        x = combined(x0, slopes, row)
        yield Step(i, count, sigmas[i], sigmas[i + 1], x, x0)


def combined(x0: Tensor, slopes: Sequence[Tensor], row: Sequence[float]) -> Tensor:
    """x0 + sum_j keep_j slope_j; a new tensor."""
    moved = x0.add(slopes[0], alpha=row[0])
    for slope, keep in zip(list(slopes)[1:], row[1:], strict=False):
        moved.add_(slope, alpha=keep)
    return moved


def equal_steps(sigmas: Sequence[float], limit: float | None) -> list[list[float]]:
    """Adams-Bashforth of order 1, 2, 3, 4, 4 ... with the weights of equal steps on every grid."""

    def weigh(levels: Sequence[float], after: float) -> list[float]:
        return [(after - levels[0]) * weight for weight in ADAMS_BASHFORTH[len(levels) - 1]]

    return _rows(sigmas, [4] * (len(sigmas) - 1), weigh, limit)


def interpolated(sigmas: Sequence[float], most: Sequence[int], log: bool, limit: float | None) -> list[list[float]]:
    """The integral of the polynomial through past slopes, `most[i]` in step i, in sigma or in log sigma."""
    return _rows(sigmas, most, lambda levels, after: _integrals(tuple(levels), after, log), limit)


def lowering(count: int, order: int, lowered: int) -> list[int]:
    """The order of each of `count` steps: `order`, but with fewer than `lowered` steps 1 in the last and at most
    2 in the one before it."""
    return [min(order, count - i) if count < lowered else order for i in range(count)]


def _rows(
    sigmas: Sequence[float],
    most: Sequence[int],
    weigh: Callable[[Sequence[float], float], Sequence[float]],
    limit: float | None,
) -> list[list[float]]:
    """`weigh(levels, after)` says the weights of the predicted noises at past levels, newest first.

    Long steps (by a factor of more than `limit` in sigma) are Euler steps, and slopes from before them are not used
    after them.
    """
    rows, usable = [], 1
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        long = is_long(sigma, after, limit)
        levels = [sigmas[i - j] for j in range(1 if long else min(usable, most[i]))]
        row = [weight / level for weight, level in zip(weigh(levels, after), levels, strict=True)]
        rows.append([1 + row[0], *row[1:]])
        usable = 1 if long else min(usable + 1, max(most))
    return rows


@lru_cache(maxsize=4096)
def _integrals(levels: tuple[float, ...], after: float, log: bool) -> tuple[float, ...]:
    """The integral over sigma from levels[0] to `after` of each level's Lagrange polynomial."""
    if len(levels) == 1 or (log and after == 0):
        return (after - levels[0], *[0.0] * (len(levels) - 1))
    at = [math.log(s) for s in levels] if log else list(levels)
    end = math.log(after) if log else after
    half, middle = (end - at[0]) / 2, (end + at[0]) / 2
    found = []
    for j, own in enumerate(at):
        others = at[:j] + at[j + 1 :]
        places = [middle + half * node for node in NODES]
        values = [math.prod((u - o) / (own - o) for o in others) * (math.exp(u) if log else 1.0) for u in places]
        found.append(half * math.fsum(weight * value for weight, value in zip(WEIGHTS, values, strict=True)))
    return tuple(found)
