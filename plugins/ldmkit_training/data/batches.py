"""Batches of any step: which samples they hold, and how they look, depends on nothing but seed and step."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ldmkit import Batch, Dataset, Draws, InputError, LdmkitError, SpecError
from ldmkit_training.data.ahead import ahead
from ldmkit_training.data.buckets import Buckets
from ldmkit_training.data.cache.reading import Latents, cache_of
from ldmkit_training.data.captions import captioned
from ldmkit_training.data.choosing import one_of
from ldmkit_training.data.filling import Filled, filled_batches
from ldmkit_training.data.geometry import random_draw
from ldmkit_training.data.order import checked_mixture, place
from ldmkit_training.data.reading import Reader, Row, stacked, unit
from ldmkit_training.data.section import DataSection, renamed_names

VALIDATION_BATCH = 32


@dataclass
class DamagedSamples:
    """Files that could not be read and were skipped: id of the sample -> what was wrong, and how often it was met."""

    damaged: dict[str, str] = field(default_factory=dict)
    skipped: int = 0

    def add(self, damaged: Mapping[str, str]) -> None:
        """Count one row's."""
        self.damaged.update(damaged)
        self.skipped += len(damaged)


class Planned(NamedTuple):
    """One process's rows of one accumulated part of a step.

    Args:
        samples: (epoch, index) of each row.
        size: (height, width) of their pictures.
    """

    step: int
    part: int
    samples: tuple[tuple[int, int], ...]
    size: tuple[int, int]


class BatchPart(NamedTuple):
    """The same as they are read."""

    planned: Planned
    rows: tuple[Row, ...]
    images: Tensor


class Batches:
    """The batches of one process.

    Args:
        dataset, section: what to read, and how.
        seed: the recipe's; with the step it decides everything.
        rank, world: this process among all.
        accumulate: parts that a step's rows are taken in.
        names: inputs that the model knows, by the model's names; None: all are kept.
        cache: of latents; then no pictures are read. Of a dataset in buckets, one for each.

    Raises:
        SpecError: `batch-split`: the batch does not divide by world * accumulate; `mixture`.
    """

    def __init__(
        self,
        dataset: Dataset,
        section: DataSection,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
        names: frozenset[str] | None = None,
        cache: Latents | None = None,
    ) -> None:
        if section.batch % (world * accumulate):
            what = f"a batch of {section.batch} cannot be shared out to {world} process(es) in {accumulate} part(s)"
            raise SpecError("batch-split", what, where="data.batch", fits=f"a multiple of {world * accumulate}")
        self.section, self.seed, self.rank, self.world, self.accumulate = section, seed, rank, world, accumulate
        self.report = DamagedSamples()
        self.length, self.mixture = len(dataset), checked_mixture(dataset.mixture, len(dataset))
        self.names = input_names(dataset, section, names)
        self.cache, self.choices = cache, dataset.choices
        self._dataset = dataset

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self._dataset, self.section)

    def steps(self, start: int = 0) -> Generator[tuple[int, list[Batch]]]:
        """(step, its parts) from a step on, without end.

        Raises:
            InputError: a damaged file, where the section does not allow to skip it; naming it.
        """
        read = self._pictures(start) if self.cache is None else self._cached(start, self.cache)
        with closing(read):
            for step in count(start):
                yield step, [next(read) for _ in range(self.accumulate)]

    def at(self, step: int) -> list[Batch]:
        """The parts of one step."""
        with closing(self.steps(step)) as steps:
            return next(steps)[1]

    def rows(self, part: int) -> range:
        """Positions in a step's whole batch of this process's rows of an accumulated part."""
        size = self.section.batch // (self.world * self.accumulate)
        first = (part * self.world + self.rank) * size
        return range(first, first + size)

    def sizes(self) -> dict[tuple[int, int], int]:
        """(height, width) of every size that batches have -> the first step of it, the largest area first.

        Of buckets that fill no batch in the first epochs, none.
        """
        buckets = self._reader.buckets
        if buckets is None:
            return {self.section.size: 0}
        found: dict[tuple[int, int], int] = {}
        many = 1 + 2 * len(self._dataset) // self.section.batch
        for step, (bucket, _) in enumerate(islice(self._filled(buckets, 0), many)):
            found.setdefault(buckets.sizes[bucket], step)
        return dict(sorted(found.items(), key=lambda item: -item[0][0] * item[0][1]))

    def unused(self, steps: int) -> list[int]:
        """Samples that are in no batch of a run of `steps`, because they wait in a bucket that is not full by then.
        Nothing is said of runs that are shorter than an epoch, and of damaged samples."""
        buckets, batch = self._reader.buckets, self.section.batch
        if buckets is None or (epochs := steps * batch // self.length) == 0:
            return []
        if not self.mixture and all((epochs - 1) * count >= batch - 1 for count in buckets.counts):
            return []  # every bucket has room for each of its samples
        left = set(np.flatnonzero(buckets.of >= 0).tolist())
        for filled in islice(self._filled(buckets, 0), steps):
            left.difference_update(index for _, index in filled.samples)
            if not left:
                break
        return sorted(left)

    def _planned(self, start: int) -> Iterator[Planned]:
        parts = range(self.accumulate)
        if (buckets := self._reader.buckets) is not None:
            for step, (bucket, samples) in enumerate(self._filled(buckets, start), start):
                for part in parts:
                    yield Planned(step, part, tuple(samples[row] for row in self.rows(part)), buckets.sizes[bucket])
            return
        for step in count(start):
            first = step * self.section.batch
            for part in parts:
                rows = (first + row for row in self.rows(part))
                samples = tuple(place(self.seed, self.length, row, self.mixture) for row in rows)
                yield Planned(step, part, samples, self.section.size)

    def _filled(self, buckets: Buckets, start: int) -> Iterator[Filled]:
        return filled_batches(self.seed, buckets.of, self.section.batch, self.mixture, start)

    def _pictures(self, start: int) -> Generator[Batch]:
        read = ahead(_Fetch(self._reader, self.seed), self._planned(start), self.section.workers)
        with closing(read):
            for got in read:
                if isinstance(got, LdmkitError):
                    raise got
                for row in got.rows:
                    self.report.add(row.damaged)
                yield self._batch(got.planned, got.rows, images=unit(got.images))

    def _cached(self, start: int, caches: Latents) -> Generator[Batch]:
        for planned in self._planned(start):
            cache, own = cache_of(caches, planned.size), self._reader.buckets
            rows, places = [], []
            for epoch, wanted in planned.samples:
                number = wanted if own is None else int(own.place[wanted])
                index, damaged = cache.usable(number, cache.mixture or self.mixture)
                places.append(index * cache.views + _view(self.seed, epoch, wanted, cache.views))
                name, inputs = cache.inputs(places[-1])
                rows.append(Row(name, None, inputs, damaged))
                self.report.add(damaged)
            latents, deviation = cache.latents(places)
            yield self._batch(planned, rows, latents=latents, deviation=deviation)

    def _batch(
        self,
        planned: Planned,
        rows: Sequence[Row],
        images: Tensor | None = None,
        latents: Tensor | None = None,
        deviation: Tensor | None = None,
    ) -> Batch:
        return Batch(
            ids=tuple(row.id for row in rows),
            images=images,
            latents=latents,
            deviation=deviation,
            inputs=[self._inputs(row, *place) for row, place in zip(rows, planned.samples, strict=True)],
            size=planned.size,
            draws=Draws(self.seed, planned.step, tuple(self.rows(planned.part))),
        )

    def _inputs(self, row: Row, epoch: int, index: int) -> dict[str, Any]:
        try:
            used = used_inputs(row.inputs, self.choices, self.section, self.seed, epoch, index)
        except InputError as problem:
            problem.where = f"{row.id}: {problem.where}"
            raise
        return chosen_inputs(used, self.names)


class _Fetch:
    """Reads the rows of a part; errors are returned. Goes to other processes."""

    def __init__(self, reader: Reader, seed: int) -> None:
        self.reader, self.seed = reader, seed

    def __call__(self, planned: Planned) -> BatchPart | LdmkitError:
        random = self.reader.section.random
        try:
            rows = [
                self.reader.read(index, random_draw(self.seed, "view", epoch, index) if random else None)
                for epoch, index in planned.samples
            ]
        except LdmkitError as problem:
            return problem
        return BatchPart(planned, tuple(row._replace(image=None) for row in rows), stacked(rows))


def input_names(dataset: Dataset, section: DataSection, names: frozenset[str] | None) -> dict[str, str]:
    """Name in the data -> name in the model, of the inputs that the model knows (None: of all).

    Raises:
        SpecError: `input-twice`.
    """
    renamed = renamed_names(dataset, section)
    return {name: new for name, new in renamed.items() if names is None or new in names}


def chosen_inputs(inputs: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A sample's inputs by the model's names; what is absent stays absent."""
    return {new: inputs[name] for name, new in names.items() if name in inputs}


def used_inputs(inputs: Mapping[str, Any], choices: Collection[str], section: DataSection, *key: int) -> dict[str, Any]:
    """A sample's inputs as they are used in an epoch: one of each input's alternatives, and its texts by the captions'
    rules; without a key (seed, epoch, index) as in validation."""
    return captioned(one_of(inputs, choices, *key), section.captions, *key)


def held_out(length: int, count: int | None) -> list[int]:
    """The samples that validation looks at: all, or `count` at equal distances, so that sources and classes that stand
    one after another all have their share."""
    used = length if count is None else min(count, length)
    return [i * length // used for i in range(used)]


def validation_batches(
    dataset: Dataset,
    section: DataSection,
    count: int | None,
    *,
    seed: int = 0,
    names: frozenset[str] | None = None,
    batch: int | None = None,
) -> list[Batch]:
    """The samples that `held_out` chooses, in their own order (those of a bucket together): centre crops, unmirrored;
    the draws are fixed.

    Raises:
        InputError: a damaged file; with `damaged: skip` it is left out, and an error only if none is left.
    """
    chosen = input_names(dataset, section, names)
    reader = Reader(dataset, section)
    indices = held_out(len(dataset), count)
    size = batch or min(VALIDATION_BATCH, section.batch)
    made: list[Batch] = []
    for chunk in _of_one_size(reader, indices, size):
        positions, rows = [], []
        for index in chunk:
            if not isinstance(row := reader.try_read(index, None), InputError):
                positions.append(index)
                rows.append(row)
        if rows:
            inputs = [chosen_inputs(used_inputs(row.inputs, dataset.choices, section), chosen) for row in rows]
            draws = Draws(seed, 0, tuple(positions))
            ids = tuple(row.id for row in rows)
            made.append(Batch(ids, unit(stacked(rows)), None, None, inputs, reader.size(positions[0]), draws))
    if not made:
        raise InputError("no-samples", "no validation sample could be read", where="data.validation")
    return made


def _of_one_size(reader: Reader, indices: Sequence[int], most: int) -> Iterator[list[int]]:
    """Samples whose pictures have the same size, at most so many at once; those that are left out have none."""
    of_size: dict[tuple[int, int], list[int]] = {}
    for index in indices:
        if (size := reader.size(index)) is not None:
            of_size.setdefault(size, []).append(index)
    for found in of_size.values():
        yield from (found[first : first + most] for first in range(0, len(found), most))


def _view(seed: int, epoch: int, index: int, views: int) -> int:
    return 0 if views == 1 else int(random_draw(seed, "cached-view", epoch, index).scale * views)
