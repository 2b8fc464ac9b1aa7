"""Detects use of the global random generators of torch, NumPy and Python."""

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
    """States of the global random generators, for comparison."""
    numpy = np.random.get_state()
    kept = (numpy[0], numpy[1].tobytes(), *numpy[2:])  # type: ignore[index]
    return {"torch": torch.get_rng_state().numpy().tobytes(), "numpy": kept, "random": random.getstate()}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators inside the `with` block, and restore them afterwards."""
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
    """The result of `run`, with the global generators seeded.

    Raises:
        Failed: it advanced one of them. A read that restores the state is detected only by another seed's results.
    """
    with seeded(seed):
        before = rng_states()
        found = run()
        changed = [name for name, state in rng_states().items() if state != before[name]]
    expect(not changed, "global random generators unchanged", f"changed: {', '.join(changed)}")
    return found
