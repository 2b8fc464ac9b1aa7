"""Shared by DPM++ 2M and its SDE form: two x0 estimates, extrapolated in log sigma."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ldmkit import Denoise, Step
from ldmkit_samplers.renoised import Look


class Row(NamedTuple):
    """x' = target + keep (x - target) + renew n, target = before + reach (x0 - before)."""

    reach: float
    keep: float
    renew: float


def plan(sigmas: Sequence[float], eta: float) -> list[Row]:
    """Coefficients of every transition, h = log(sigma / sigma').

    keep = exp(-(1 + eta) h), renew = sigma' sqrt(1 - exp(-2 eta h)), reach = 1 + h / (2 h_before); reach is 1
    at the first step and on the way to sigma 0, where h is infinite.
    """
    rows, before = [], 0.0
    for sigma, after in itertools.pairwise(sigmas):
        if after == 0:
            rows.append(Row(1.0, 0.0, 0.0))
            break
        ratio, h = after / sigma, math.log(sigma / after)
        reach = 1 + h / (2 * before) if before else 1.0
        rows.append(Row(reach, ratio ** (1 + eta), after * math.sqrt(1 - ratio ** (2 * eta))))
        before = h
    return rows


def transitions(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    rows: Sequence[Row],
    noise: Callable[[int], Tensor],
    look: Look | None = None,
) -> Iterator[Step]:
    """Run the plan. `look` is called instead of `denoise` if the step does not start at x."""
    count, before = len(rows), x
    for i, (reach, keep, renew) in enumerate(rows):
        if look is None:
            x0 = kept = denoise(x, sigmas[i])
        else:
            x0, x, kept = look(x, sigmas[i])
        target = x0 if reach == 1 else torch.lerp(before, x0, reach)
        x = torch.lerp(target, x, keep)
        if renew:
            x.add_(noise(i), alpha=renew)
        before = kept
        yield Step(i, count, sigmas[i], sigmas[i + 1], x, x0)
