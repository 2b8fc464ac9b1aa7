"""A cache of what `denoise` gives."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

import ldmkit


class Alternate(ldmkit.Cache):
    """Every other call takes the estimate of the call before, where the noise level does not rise."""

    api: ClassVar[int] = 1

    def around(self, denoise: ldmkit.Denoise, process: ldmkit.Process, sigmas: tuple[float, ...]) -> ldmkit.Denoise:
        """With a memory of its own."""
        kept: list[tuple[Tensor, float]] = []

        def cached(x: Tensor, sigma: float) -> Tensor:
            if kept and sigma <= kept[0][1]:
                return kept.pop()[0].clone()
            kept[:] = [(denoise(x, sigma), sigma)]
            return kept[0][0]

        return cached
