"""Shared by one-step samplers with one evaluation per step: Euler, DDIM, Euler ancestral, DDPM.

In the frame x = x0 + sigma n each of their transitions is x' = x0 + keep (x - x0) + renew n, and they
differ in the two numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ldmkit import Denoise, Step
from ldmkit_samplers.limits import Limits
from ldmkit_samplers.renoised import Look


def transitions(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    pairs: Sequence[tuple[float, float]],
    noise: Callable[[int], Tensor],
    limits: Limits | None = None,
    factors: Sequence[float] = (),
    look: Look | None = None,
) -> Iterator[Step]:
    """Run x' = x0 + keep (x - x0) + renew n over `pairs` of (keep, renew), one per transition.

    `limits` apply only to the first x0: the noise x - x0 remains that of the network. `factors`, one per transition,
    multiply x' if it is used as a state of another level (`retaken`). `look` is called instead of `denoise` if the step
    does not start at x.
    """
    count = len(pairs)
    for i, (keep, renew) in enumerate(pairs):
        if look is None:
            x0 = denoise(x, sigmas[i])
        else:
            x0, x, _ = look(x, sigmas[i])
        x = torch.lerp(x0, x, keep)
        if limits is not None:
            limited = limits(x0)
            x.add_(limited - x0)
            x0 = limited
        if renew:
            x.add_(noise(i), alpha=renew)
        if factors:
            x.mul_(factors[i])
        yield Step(i, count, sigmas[i], sigmas[i + 1], x, x0)


def retaken(sigma: float, other: float) -> float:
    """Factor for a state x0 + sigma n that is used as one at another level: it stays the same on the scale of a
    variance-preserving process, x / sqrt(1 + sigma^2)."""
    return math.sqrt((1 + other * other) / (1 + sigma * sigma))


def ancestral(sigma: float, after: float, eta: float) -> tuple[float, float]:
    """(keep, renew) with a share eta of the noise of the reverse posterior.

    Song et al. 2021 (DDIM), equation 16, divided by sqrt(alpha_bar'): the alphas cancel, so that
    renew = eta sigma' sqrt(1 - sigma'^2 / sigma^2) for every process; keep sigma and renew add up to sigma'.
    """
    ratio = after / sigma
    renew = eta * after * math.sqrt(1 - ratio * ratio)
    return math.sqrt(max(after * after - renew * renew, 0.0)) / sigma, renew
