"""Reads one sample and resizes it; handles damaged files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ldmkit import Dataset, InputError, Sample
from ldmkit_training.data.buckets import buckets_of, in_buckets
from ldmkit_training.data.extracting import extracted, extractors_of
from ldmkit_training.data.geometry import Draw, fitted
from ldmkit_training.data.order import after
from ldmkit_training.data.section import DataSection
from ldmkit_training.data.sources.lying import spatial_inputs_of, told_of


class Row(NamedTuple):
    """A sample as a batch takes it.

    Args:
        image: (H,W,3) uint8 at the section's size; None where it travels apart.
        inputs: raw inputs by the data's own names.
        damaged: ids of the samples that were skipped on the way to this one -> what was wrong.
    """

    id: str
    image: np.ndarray | None
    inputs: Mapping[str, Any]
    damaged: Mapping[str, str]


class Reader:
    """Reads samples of a dataset as a section wants them."""

    def __init__(self, dataset: Dataset, section: DataSection) -> None:
        self.dataset, self.section = in_buckets(dataset, section), section
        self.buckets = buckets_of(self.dataset)
        sizes = () if self.buckets is None else self.buckets.sizes
        self._views = {size: (section.at(size), spatial_inputs_of(dataset, size)) for size in sizes}
        self._whole, self._told = (section, spatial_inputs_of(dataset)), told_of(dataset)
        self._extractors = extractors_of(section.extract)

    def read(self, index: int, drawn: Draw | None) -> Row:
        """Sample `index`, or with `damaged: skip` the next one of its stretch (and bucket), round the end, that can be
        read.

        Raises:
            InputError: it is damaged; or all are (`no-samples`).
        """
        damaged: dict[str, str] = {}
        for chosen in after(index, len(self.dataset), self.dataset.mixture):
            if self.size(chosen) != self.size(index):
                continue
            row = self.try_read(chosen, drawn)
            if not isinstance(row, InputError):
                return row._replace(damaged=damaged)
            damaged[self.dataset.id(chosen)] = str(row)
        what = f"none of the {len(damaged)} samples can be read"
        raise InputError("no-samples", what, where=self.dataset.id(index), fits=next(iter(damaged.values()), None))

    def try_read(self, index: int, drawn: Draw | None) -> Row | InputError:
        """Sample `index`; the error where it is damaged and may be skipped."""
        rows = self.try_views(index, [drawn])
        return rows if isinstance(rows, InputError) else rows[0]

    def try_views(self, index: int, draws: Sequence[Draw | None]) -> tuple[Row, ...] | InputError:
        """The same of several views of one sample, which is read once."""
        try:
            sample = self.dataset[index]
        except InputError as problem:
            if not self._may_skip(problem):
                raise
            return problem
        return tuple(self._fitted(sample, drawn, self.size(index)) for drawn in draws)

    def size(self, index: int) -> tuple[int, int] | None:
        """(height, width) of the pictures of sample `index`; None: it is left out."""
        return self.section.size if self.buckets is None else self.buckets.size(index)

    def _may_skip(self, problem: InputError) -> bool:
        return self.section.damaged == "skip" and problem.code == "input.bad-file"

    def _fitted(self, sample: Sample, drawn: Draw | None, size: tuple[int, int] | None) -> Row:
        section, lying = self._whole if size is None else self._views.get(size, self._whole)
        image, inputs = fitted(sample, self.dataset.geometry, section, drawn, lying, self._told)
        return Row(sample.id, image, {**inputs, **extracted(self._extractors, image)}, {})


def stacked(rows: Sequence[Row]) -> Tensor:
    """The rows' pictures (B,H,W,3) uint8."""
    return torch.from_numpy(np.stack([row.image for row in rows if row.image is not None]))


def unit(images: Tensor) -> Tensor:
    """(B,H,W,3) uint8 -> (B,3,H,W) float32 in [-1,1]."""
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()
