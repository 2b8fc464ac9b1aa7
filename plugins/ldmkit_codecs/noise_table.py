"""The noise levels of a consistency decoder, and the scalings of its network at each of them.

x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n with the cosine schedule of Nichol & Dhariwal 2021. The scalings are those of
Karras et al. 2022 for data of deviation `sigma_data`, at sigma_t = sqrt(1 / a_t - 1), for x_t in the scale above:
x_0 is estimated as skip_t x_t + out_t F(in_t x_t, t).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

OFFSET, MOST = 0.008, 0.999
"""Offset of the cosine schedule, and the largest beta."""


@dataclass(frozen=True)
class NoiseTable:
    """Factors by timestep, (steps,) float32 each, as the published decoders compute them.

    Args:
        signal, noise: of the data and of the noise in x_t.
        skip, out, into: of x_t and F in the estimate, and of x_t in the network's input.
    """

    signal: Tensor
    noise: Tensor
    skip: Tensor
    out: Tensor
    into: Tensor

    def rows(self, name: str, t: Tensor, like: Tensor) -> Tensor:
        """A factor at timesteps t (B,), shaped to multiply `like` (B, ...), on its device and in its dtype."""
        found: Tensor = getattr(self, name)[t.cpu()]
        return found.to(like).view(-1, *[1] * (like.ndim - 1))


@cache
def noise_table(steps: int, sigma_data: float) -> NoiseTable:
    """The table of a cosine schedule of so many steps; in float32 throughout, to give the published numbers."""

    def alpha(share: float) -> float:
        return math.cos((share + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2

    betas = [min(1 - alpha((i + 1) / steps) / alpha(i / steps), MOST) for i in range(steps)]
    with torch.device("cpu"):
        product = torch.cumprod(1.0 - torch.tensor(betas, dtype=torch.float32), dim=0)
        sigma, wider = torch.sqrt(1.0 / product - 1), torch.sqrt(1.0 / product)
        spread = sigma**2 + sigma_data**2
        return NoiseTable(
            signal=torch.sqrt(product),
            noise=torch.sqrt(1.0 - product),
            skip=wider * sigma_data**2 / spread,
            out=sigma * sigma_data / spread**0.5,
            into=wider / spread**0.5,
        )
