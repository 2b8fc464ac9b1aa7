"""First weights that are a function of the recipe's seed and the part's name, whatever else is built."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, path: str) -> Iterator[None]:
    """Inside the block torch's CPU generator is seeded from a seed and a part's path; it is restored afterwards."""
    state = torch.get_rng_state()
    digest = hashlib.blake2b(f"{seed}/{path}".encode(), digest_size=4).digest()
    torch.default_generator.manual_seed(int.from_bytes(digest, "big"))
    try:
        yield
    finally:
        torch.set_rng_state(state)
