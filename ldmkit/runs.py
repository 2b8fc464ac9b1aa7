"""What is fixed for one run."""

from __future__ import annotations

from typing import NamedTuple


class Run(NamedTuple):
    """What is fixed for one run: the sigmas it visits (decreasing, N+1 values) and the latent size (h, w)."""

    sigmas: tuple[float, ...]
    size: tuple[int, int]

    def progress(self, sigma: float) -> float:
        """Fraction of the steps that are done when the network is called at `sigma`: 0 at the first step."""
        steps = max(len(self.sigmas) - 1, 1)
        reached = sum(1 for s in self.sigmas if s >= sigma * (1 - 1e-9)) - 1
        return min(max(reached, 0), steps) / steps
