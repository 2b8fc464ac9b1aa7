"""Noise schedules of discrete-time diffusion as float64 tables on the host."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from operator import mul

SMALLEST_ALPHA_BAR = 2.0**-24
"""A terminal alpha_bar of zero is raised to this where nothing else is said, so that every sigma is finite (4096)."""


def spaced(start: float, end: float, count: int) -> list[float]:
    """`count` equally spaced numbers, both ends included."""
    if count == 1:
        return [start]
    return [start + (end - start) * i / (count - 1) for i in range(count - 1)] + [end]


def linear_sqrt(start: float, end: float, steps: int) -> list[float]:
    """Betas linear in sqrt(beta): latent diffusion's "linear", elsewhere "scaled_linear"."""
    return [b * b for b in spaced(math.sqrt(start), math.sqrt(end), steps)]


def linear(start: float, end: float, steps: int) -> list[float]:
    """Betas linear in beta (Ho et al. 2020, section 4); latent diffusion's "sqrt_linear"."""
    return spaced(start, end, steps)


def square_root(start: float, end: float, steps: int) -> list[float]:
    """Betas that are the square roots of a linear ramp; latent diffusion's "sqrt"."""
    return [math.sqrt(b) for b in spaced(start, end, steps)]


def cosine(offset: float, steps: int, largest: float = 0.999) -> list[float]:
    """Betas of the cosine schedule (Nichol & Dhariwal 2021, equation 17), clipped to `largest`."""
    bars = [math.cos((i / steps + offset) / (1 + offset) * math.pi / 2) ** 2 for i in range(steps + 1)]
    return [min(max(1 - after / before, 0.0), largest) for before, after in pairwise(bars)]


def cumulative(betas: Iterable[float]) -> list[float]:
    """alpha_bar_t = prod_{s <= t} (1 - beta_s)."""
    return list(accumulate((1 - beta for beta in betas), mul))


def zero_terminal(alpha_bars: Sequence[float], last: float = SMALLEST_ALPHA_BAR) -> list[float]:
    """Shift and scale sqrt(alpha_bar) so that it ends at 0 and starts where it did (Lin et al. 2023, algorithm 1).

    The 0 itself becomes `last`.
    """
    roots = [math.sqrt(a) for a in alpha_bars]
    first, end = roots[0], roots[-1]
    rescaled = [((r - end) * first / (first - end)) ** 2 for r in roots]
    return [*rescaled[:-1], last]
