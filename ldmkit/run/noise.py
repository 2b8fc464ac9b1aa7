"""Noise as a pure function of (seed, purpose, index).

A sample's noise is the same alone, in any batch, after a resume, and regardless of other draws. No global generator is
read or advanced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ldmkit.contracts.arguments import check_device, list_of
from ldmkit.contracts.arguments import check_seed as check_seed
from ldmkit.contracts.draws import seeded as seeded
from ldmkit.contracts.value import integer
from ldmkit.errors import InputError, shown

MOST_NUMBERS = 2**48
"""Maximum number of elements in a batch of noise, far beyond any memory but within torch's integer range."""


def normal(seed: int, purpose: str, index: int, shape: Sequence[int]) -> Tensor:
    """Unit normal noise, float32 on the CPU.

    Args:
        seed: seed of one sample, 0 <= seed < 2**64.
        purpose: name of the stream (`"start"`, `"step"`, `"posterior"`, ...); streams are independent.
        index: position in the stream, e.g. the step.
        shape: shape of one sample, without the batch axis.
    """
    # independent of torch.set_default_dtype and set_default_device
    return torch.randn(tuple(shape), generator=seeded(seed, purpose, index), dtype=torch.float32, device="cpu")


class Noise:
    """The noise of one run: a sampler calls it with an index and gets a batch (B, *shape).

    Args:
        seeds: one per sample.
        shape: shape of one sample, without the batch axis.
        device: device of the result; the noise is drawn on the CPU, so it is the same for every device.

    Raises:
        InputError: `seed-type`, `seed-range`, `noise-shape`, `device`.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"):
        given = list_of(seeds, "seeds", "seed-type", "a list of integers")
        if not given:
            raise InputError("seed-type", "the list of seeds is empty", where="seeds", fits="a list of integers")
        self.seeds = tuple(check_seed(s, f"seeds[{i}]") for i, s in enumerate(given))
        fits = "a list of integers >= 0"
        sides = [integer(side) for side in list_of(shape, "shape", "noise-shape", fits)]
        self.shape = tuple(side for side in sides if side is not None and side >= 0)
        count = math.prod(max(side, 1) for side in (*self.shape, len(given)))
        if len(self.shape) != len(sides) or count > MOST_NUMBERS:
            raise InputError("noise-shape", f"got {shown(shape)}", where="shape", fits=fits)
        self.device = check_device(device, meta=True)

    def __call__(self, index: int, purpose: str = "step") -> Tensor:
        """Unit normal noise (B, *shape), float32.

        Raises:
            InputError: `noise-index`: not an integer, which would silently select another stream.
        """
        place = index if type(index) is int else integer(index)
        if place is None or not isinstance(purpose, str):
            got, fits = (purpose, "a string") if place is not None else (index, "an integer")
            raise InputError("noise-index", f"noise({shown(got)})", fits=fits)
        index = place
        rows = [normal(seed, purpose, index, self.shape) for seed in self.seeds]
        batch = rows[0].unsqueeze(0) if len(rows) == 1 else torch.stack(rows)
        return batch.to(self.device, non_blocking=True)
