"""Multistep sampling of consistency models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from ldmkit import Denoise, Sampler, Step
from ldmkit_samplers.first_order import transitions


class LCM(Sampler):
    """Luo et al. 2023 (latent consistency models), algorithm 3 without its guidance: x' = x0 + sigma' n.

    For networks distilled to predict x0 at once. The boundary scalings of the published model, c_skip and c_out, are
    part of the network; above timestep 20 they are 0 and 1 to 1e-5.
    """

    order: ClassVar[int | None] = None
    estimate: ClassVar[Literal["mean", "end", "distilled"]] = "end"
    revision: Literal[1] = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        return transitions(denoise, x, sigmas, [(0.0, after) for after in sigmas[1:]], noise)
