"""Aspect-ratio buckets: pictures of mixed proportions, each trained at the size of a given area that fits it best."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ldmkit import Dataset, InputError
from ldmkit.contracts.wrapping import Wrapping
from ldmkit_training.data.bucket_section import Size
from ldmkit_training.data.section import DataSection
from ldmkit_training.data.sources.lying import spatial_inputs_of, told_of
from ldmkit_training.data.sources.records import first_few
from ldmkit_training.data.subset import Subset

LEFT_OUT = -1
"""The bucket of a picture that has none."""
SHOWN = 12
"""Buckets that a note lists."""


class Buckets:
    """Which picture of a source has which size.

    Args:
        sizes: (height, width) of each bucket.
        of: (samples,) the bucket of each sample; `LEFT_OUT`: it is not trained on.
    """

    def __init__(self, sizes: Sequence[Size], of: np.ndarray) -> None:
        self.sizes, self.of = tuple(sizes), of

    def size(self, index: int) -> Size | None:
        """(height, width) of sample `index`; None: it is left out."""
        bucket = int(self.of[index])
        return None if bucket == LEFT_OUT else self.sizes[bucket]

    @cached_property
    def place(self) -> np.ndarray:
        """(samples,) the position of each sample among those of its bucket."""
        found = np.zeros(len(self.of), dtype=np.int64)
        for bucket in range(len(self.sizes)):
            members = self.of == bucket
            found[members] = np.arange(int(members.sum()))
        return found

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Samples of each bucket."""
        counted = Counter(self.of.tolist())
        return tuple(counted[bucket] for bucket in range(len(self.sizes)))


class Bucketed(Wrapping):
    """A source whose samples have buckets.

    Args:
        dataset: the source; sizes are read from its pictures' headers, or by decoding them where it cannot tell.
        section: with `buckets`.
        trained: whether batches of training are made of it, and not of validation, which drops and repeats nothing.

    Raises:
        InputError: `picture-size`: pictures without a bucket; `bad-file`: of one that has to be decoded (a damaged one
            that may be skipped stays, in the bucket of `size`, and is met there); `no-samples`: all are left out.
    """

    def __init__(self, dataset: Dataset, section: DataSection, *, trained: bool = True) -> None:
        super().__init__(dataset)
        sizes: dict[Size, int] = {}
        of = np.full(len(dataset), LEFT_OUT, dtype=np.int64)
        smaller, left = list[int](), list[int]()
        whole = () if section.buckets is None else section.buckets.sizes(section.size)
        for index in range(len(dataset)):
            own = _picture_size(dataset, index, section)
            size = section.size if own is None else size_for(own, section)
            if size is None:
                left.append(index)
                continue
            of[index] = sizes.setdefault(size, len(sizes))
            if size not in whole:
                smaller.append(index)
        self._check_left(left, section)
        self.buckets = Buckets(list(sizes), of)
        self.notes = (*self.notes, *self._said(smaller, left), *(self._batches(section.batch) if trained else ()))

    def _check_left(self, left: Sequence[int], section: DataSection) -> None:
        assert section.buckets is not None
        step, ids = section.buckets.step, first_few(self.dataset.id(index) for index in left)
        if left and section.buckets.small != "leave-out":
            what = f"{len(left)} picture(s) have a side of less than {step} pixels, the least of a bucket: {ids}"
            raise InputError("picture-size", what, where="data.buckets", fits="small: enlarge, or leave-out")
        if len(left) == len(self.dataset):
            what = f"all {len(left)} pictures are smaller than their buckets: {ids}"
            fits = "a smaller `size`, or small: enlarge or smaller-bucket"
            raise InputError("no-samples", what, where="data.buckets", fits=fits)

    def _said(self, smaller: Sequence[int], left: Sequence[int]) -> list[str]:
        buckets = self.buckets
        order = sorted(range(len(buckets.sizes)), key=lambda bucket: -buckets.counts[bucket])
        shown = [f"{h} x {w}: {buckets.counts[bucket]}" for bucket in order[:SHOWN] for h, w in [buckets.sizes[bucket]]]
        more = f", and {len(order) - SHOWN} more" if len(order) > SHOWN else ""
        said = [f"{len(order)} bucket(s) (height x width: pictures): {', '.join(shown)}{more}"]
        if smaller:
            ids = first_few(self.dataset.id(index) for index in smaller)
            said.append(
                f"{len(smaller)} picture(s) are smaller than their bucket and have one of their own size: {ids}"
            )
        if left:
            ids = first_few(self.dataset.id(index) for index in left)
            said.append(f"{len(left)} picture(s) are smaller than their bucket and left out: {ids}")
        return said

    def _batches(self, batch: int) -> list[str]:
        """What is to be said of pictures that do not fill their batches."""
        counts, said = self.buckets.counts, list[str]()
        if rest := sum(count % batch for count in counts):
            what = f"{rest} of {sum(counts)} pictures do not fill a batch of their bucket in an epoch"
            said.append(f"{what}: they wait for the next one's")
        if few := sum(count < batch for count in counts):
            said.append(f"{few} bucket(s) have fewer pictures than a batch, which then has some of them twice")
        return said


class OneBucket(Subset):
    """The samples of one bucket.

    Args:
        dataset: a source with buckets.
        number: of the bucket.
    """

    def __init__(self, dataset: Dataset, buckets: Buckets, number: int) -> None:
        super().__init__(dataset, np.flatnonzero(buckets.of == number).tolist())
        size = buckets.sizes[number]
        self.buckets = Buckets([size], np.zeros(len(self), dtype=np.int64))
        self.lying, self.told_views = spatial_inputs_of(dataset, size), told_of(dataset)


def buckets_of(dataset: Dataset) -> Buckets | None:
    """The buckets of a source, whatever is wrapped around it since."""
    inner: Dataset | None = dataset
    while inner is not None:
        if isinstance(inner, (Bucketed, OneBucket)):
            return inner.buckets
        inner = inner.dataset if isinstance(inner, Wrapping) else None
    return None


def in_buckets(dataset: Dataset, section: DataSection, *, trained: bool = True) -> Dataset:
    """The source with buckets, where the section has them and it has none."""
    if section.buckets is None or buckets_of(dataset) is not None:
        return dataset
    return Bucketed(dataset, section, trained=trained)


def size_for(picture: Size, section: DataSection) -> Size | None:
    """The bucket of a picture of (height, width): that of the nearest proportions; of one that would have to be
    enlarged, what `small` says. None: it has none."""
    assert section.buckets is not None
    (height, width), rule = picture, section.buckets
    ratio, sizes = math.log(height / width), rule.sizes(section.size)
    best = min(sizes, key=lambda size: (abs(math.log(size[0] / size[1]) - ratio), -size[0] * size[1]))
    if rule.small == "enlarge" or (height >= best[0] and width >= best[1]):
        return best
    if rule.small == "leave-out":
        return None
    longest = max(map(max, sizes))
    rows, columns = (min(side, longest) // rule.step * rule.step for side in picture)
    rows, columns = (
        min(side, int(other * rule.ratio) // rule.step * rule.step)
        for side, other in ((rows, columns), (columns, rows))
    )
    return (rows, columns) if rows and columns else None


def _picture_size(dataset: Dataset, index: int, section: DataSection) -> Size | None:
    if (known := dataset.picture_size(index)) is not None:
        return known
    try:
        height, width = dataset[index].image.shape[:2]
    except InputError as problem:
        if section.damaged == "skip" and problem.code == "input.bad-file":
            return None
        raise
    return height, width
