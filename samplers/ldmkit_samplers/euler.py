"""Euler's method on the probability-flow ODE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor

from ldmkit import Denoise, Sampler, Step
from ldmkit_samplers.first_order import transitions


class Euler(Sampler):
    """dx/dsigma = (x - x0) / sigma, one step per noise level (Karras et al. 2022, algorithm 1 without the correction).

    In this frame the same update is DDIM with eta = 0 and the Euler step of a rectified flow.
    """

    order: ClassVar[int | None] = 1
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        return transitions(denoise, x, sigmas, [(b / a, 0.0) for a, b in pairwise(sigmas)], noise)
