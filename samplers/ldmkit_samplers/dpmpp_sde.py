"""DPM-Solver++ of second order, single step, on the diffusion SDE."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from ldmkit import Denoise, Example, Sampler, Step
from ldmkit_samplers.first_order import ancestral


class DPMppSDE(Sampler):
    """Lu et al. 2022 (DPM-Solver++), algorithm 1 with r = 1/2, on the SDE (k-diffusion's sampler).

    The noise at the end of a step contains that at its midpoint, as on a single path of the SDE. Two evaluations per
    step, one for a step to sigma 0. Step i draws noise 2i and 2i + 1.

    Args:
        eta: share of the noise, 0 to 1; at 0 it is DPM-Solver++(2S), of second order.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"eta": 0.0}))
    eta: float = Field(default=1.0, ge=0, le=1)
    revision: Literal[1] = 1

    @property
    def order(self) -> int | None:
        return None if self.eta else 2

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        rows = [_row(sigma, after, self.eta) for sigma, after in pairwise(sigmas)]
        for i, row in enumerate(rows):
            x0 = denoise(x, sigmas[i])
            if row.mid:
                ahead = torch.lerp(x0, x, row.keep_mid)
                drawn = noise(2 * i) if row.renew_mid else None
                x0 = denoise(ahead if drawn is None else ahead.add_(drawn, alpha=row.renew_mid), row.mid)
                x = torch.lerp(x0, x, row.keep)
                if drawn is not None:
                    x.add_(drawn, alpha=row.carried).add_(noise(2 * i + 1), alpha=row.fresh)
            else:
                x = x0
            yield Step(i, len(rows), sigmas[i], sigmas[i + 1], x, x0)

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1


class Row(NamedTuple):
    """x_mid = x0 + keep_mid (x - x0) + renew_mid n; x' = x0_mid + keep (x - x0_mid) + carried n + fresh n'."""

    mid: float = 0.0
    keep_mid: float = 0.0
    renew_mid: float = 0.0
    keep: float = 0.0
    carried: float = 0.0
    fresh: float = 0.0


def _row(sigma: float, after: float, eta: float) -> Row:
    if after == 0:
        return Row()
    mid = math.sqrt(sigma * after)
    (keep_mid, renew_mid), (keep, renew) = ancestral(sigma, mid, eta), ancestral(sigma, after, eta)
    carried = ancestral(mid, after, eta)[0] * renew_mid
    return Row(mid, keep_mid, renew_mid, keep, carried, math.sqrt(renew * renew - carried * carried))
