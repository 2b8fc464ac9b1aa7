"""CFG++: the noise that a step keeps is that of the unconditional estimate.

With x0 the guided estimate and u the unconditional one, a CFG++ step keeps the noise x - u, while the sampler it is
derived from keeps x - x0 (Chung et al. 2024, algorithm 2). In the frame x = x0 + sigma n, that is the original
sampler's step from x + (x0 - u) instead of x; for Euler x0 + (sigma' / sigma) (x + x0 - u - x0).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor

from ldmkit import Denoise, estimates


class Seen(NamedTuple):
    """What a step starts from.

    Args:
        x0: the estimate that the step goes to.
        x: where it starts.
        kept: the estimate that later steps extrapolate from.
    """

    x0: Tensor
    x: Tensor
    kept: Tensor


Look: TypeAlias = Callable[[Tensor, float], Seen]
"""(x, sigma) -> what a step at that state starts from."""


def renoised(denoise: Denoise) -> Look:
    """What steps of CFG++ start from.

    Raises:
        RunError: `no-estimate`, at the first call: `denoise` gives no unconditional estimate.
    """
    estimate = estimates(denoise, "unconditional")

    def look(x: Tensor, sigma: float) -> Seen:
        found = estimate(x, sigma)
        assert found.unconditional is not None, "asked for"
        return Seen(found.x0, x + (found.x0 - found.unconditional), found.unconditional)

    return look
