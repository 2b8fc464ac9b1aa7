"""Noise as a pure function of (seed, purpose, index).

Sample b of a batch draws the same numbers alone, in any batch, after a resume, and whatever else drew
noise before it. No global generator is read or advanced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ldmkit.errors import InputError, shown
from ldmkit.value import integer

SEED_LIMIT = 2**64


def check_seed(seed: object, where: str = "seed") -> int:
    """A seed as an int in [0, 2**64).

    Raises:
        InputError: not an integer, or outside 64 bits.
    """
    number = integer(seed)
    if number is None:
        raise InputError("seed-type", f"a seed is an integer, got {shown(seed)}", where=where)
    if not 0 <= number < SEED_LIMIT:
        raise InputError("seed-range", f"{number} is outside 64 bits", where=where, fits="0 <= seed < 2**64")
    return number


def normal(seed: int, purpose: str, index: int, shape: Sequence[int]) -> Tensor:
    """Unit normal noise, float32 on the CPU.

    Args:
        seed: of one sample, 0 <= seed < 2**64.
        purpose: what it is for (`"start"`, `"step"`, `"posterior"`, ...); purposes are independent streams.
        index: position in the purpose's stream, e.g. the step.
        shape: of one sample, without the batch axis.
    """
    return torch.randn(tuple(shape), generator=seeded(seed, purpose, index))


def seeded(*key: int | str) -> torch.Generator:
    """A generator on the CPU that depends on the key alone; keys that differ anywhere give independent streams."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


class Noise:
    """The noise of one run: a sampler calls it with an index and gets a batch (B, *shape).

    Args:
        seeds: one a sample.
        shape: of one sample, without the batch axis.
        device: where the noise is wanted; it is drawn on the CPU, so every device gets the same numbers.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"):
        if isinstance(seeds, (str, bytes)) or not isinstance(seeds, Sequence) or not seeds:
            raise InputError("seed-type", f"got {shown(seeds)}", where="seeds", fits="a list of integers")
        self.seeds = tuple(check_seed(s, f"seeds[{i}]") for i, s in enumerate(seeds))
        sides = [integer(side) for side in shape] if isinstance(shape, Sequence) else [None]
        self.shape = tuple(side for side in sides if side is not None and side >= 0)
        if len(self.shape) != len(sides):
            raise InputError("noise-shape", f"got {shown(shape)}", where="shape", fits="a list of integers >= 0")
        self.device = torch.device(device)

    def __call__(self, index: int, purpose: str = "step") -> Tensor:
        rows = [normal(seed, purpose, index, self.shape) for seed in self.seeds]
        batch = rows[0].unsqueeze(0) if len(rows) == 1 else torch.stack(rows)
        return batch.to(self.device, non_blocking=True)
