"""Whether something draws from the global random generators of torch, numpy and Python."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch

from ldmkit.testing.checks import expect

Result = TypeVar("Result")


def rng_states() -> dict[str, Any]:
    """States of the global random generators, to compare with later ones."""
    numpy = np.random.get_state()
    kept = (numpy[0], numpy[1].tobytes(), *numpy[2:])  # type: ignore[index]
    return {"torch": torch.get_rng_state().numpy().tobytes(), "numpy": kept, "random": random.getstate()}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators at a seed while the block runs, and as they were after it."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def without_draws(run: Callable[[], Result], seed: int = 1) -> Result:
    """What `run` returns, with the global generators at a seed.

    Raises:
        Failed: it moved one of them. Whether it read one and put it back, only another seed tells.
    """
    with seeded(seed):
        before = rng_states()
        found = run()
        changed = [name for name, state in rng_states().items() if state != before[name]]
    expect(not changed, "global random generators as they were", f"changed: {', '.join(changed)}")
    return found
