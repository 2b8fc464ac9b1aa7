"""The order of batches that are of one bucket each, as a pure function of the seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ldmkit_training.data.order import Mixture, places


class Filled(NamedTuple):
    """The samples of a batch.

    Args:
        samples: (epoch, index) of each row.
    """

    bucket: int
    samples: list[tuple[int, int]]


def filled_batches(seed: int, of: np.ndarray, batch: int, mixture: Mixture = (), start: int = 0) -> Iterator[Filled]:
    """The batches from one on. Samples come in the order of `order.place` and wait in their bucket until a batch of it
    is full: each is used as often as without buckets, and what is left at an epoch's end waits for the next one's.

    Args:
        of: (samples,) the bucket of each, negative: it is left out; not all of them are.
    """
    done = 0
    epochs, indices = (np.empty(0, dtype=np.int64) for _ in range(2))
    for more_epochs, more_indices in places(seed, len(of), mixture):
        used = of[more_indices] >= 0
        epochs = np.concatenate([epochs, more_epochs[used]])
        indices = np.concatenate([indices, more_indices[used]])
        full, waiting = _full(of[indices], batch)
        for rows in full[max(0, start - done) :]:
            samples = zip(epochs[rows].tolist(), indices[rows].tolist(), strict=True)
            yield Filled(int(of[indices[rows[0]]]), list(samples))
        done += len(full)
        epochs, indices = epochs[waiting], indices[waiting]


def _full(buckets: np.ndarray, batch: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Positions of each full batch, in the order in which they fill, and of what is left."""
    full, waiting = list[np.ndarray](), list[np.ndarray]()
    order = np.argsort(buckets, kind="stable")
    ends = np.flatnonzero(np.diff(buckets[order])) + 1
    for members in np.split(order, ends):
        whole = len(members) // batch * batch
        full.extend(members[:whole].reshape(-1, batch))
        waiting.append(members[whole:])
    full.sort(key=lambda rows: int(rows[-1]))
    return full, np.sort(np.concatenate(waiting))
