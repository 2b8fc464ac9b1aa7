"""Reuses latents of an older cache for views with the same pixels, whatever the file's name or time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldmkit_training.data.cache.files import DEVIATION, DIGESTS, MODE, Meta
from ldmkit_training.data.reading import Row

SAME = ("format", "codec", "dtype", "deviation")
"""Aspects of a cache's key that its latents depend on, beside the pictures."""


def view_digest(row: Row) -> np.ndarray:
    """16 bytes (uint8) that stand for a view's picture; no readable view has zeros alone."""
    assert row.image is not None
    made = hashlib.blake2b(f"{row.image.shape}".encode(), digest_size=16)
    made.update(np.ascontiguousarray(row.image).tobytes())
    return np.frombuffer(made.digest(), dtype=np.uint8)


class Older:
    """The latents of an older cache by what their views showed.

    Args:
        folder, meta: of a complete cache; None: there is none.
        key: of the cache that is being built; an older one of another codec has nothing to give.
    """

    def __init__(self, folder: Path, meta: Meta | None, key: Mapping[str, str]) -> None:
        self.kept = 0
        self._rows: dict[bytes, int] = {}
        if meta is None or any(meta.key.get(name) != key.get(name) for name in SAME):
            return
        digests = np.load(folder / DIGESTS)
        self._rows = {row.tobytes(): place for place, row in enumerate(digests) if row.any()}
        self._mode = np.load(folder / MODE, mmap_mode="r")
        self._deviation = np.load(folder / DEVIATION, mmap_mode="r") if meta.deviation else None

    def __len__(self) -> int:
        return len(self._rows)

    def places(self, digests: Sequence[np.ndarray]) -> list[int | None]:
        """Row of each view, None where there is none."""
        found = [self._rows.get(digest.tobytes()) for digest in digests]
        self.kept += sum(place is not None for place in found)
        return found

    def latents(self, places: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Modes and deviations (B,C,h,w) float32 of rows."""
        mode = torch.from_numpy(np.asarray(self._mode[list(places)])).float()
        if self._deviation is None:
            return mode, None
        return mode, torch.from_numpy(np.asarray(self._deviation[list(places)])).float()

    def close(self) -> None:
        """Let go of the files, which are about to be replaced."""
        self._rows = {}
        self.__dict__.pop("_mode", None)
        self.__dict__.pop("_deviation", None)
