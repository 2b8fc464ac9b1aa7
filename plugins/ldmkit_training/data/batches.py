"""Batches of any step: which samples they hold, and how they look, depends on nothing but seed and step."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

from torch import Tensor

from ldmkit import Batch, Dataset, Draws, InputError, LdmkitError, SpecError
from ldmkit_training.data.ahead import ahead
from ldmkit_training.data.cache.reading import LatentCache
from ldmkit_training.data.choosing import one_of
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


class BatchPart(NamedTuple):
    """One process's rows of one accumulated part of a step, as they are read."""

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
        cache: of latents; then no pictures are read.

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
        cache: LatentCache | None = None,
    ) -> None:
        if section.batch % (world * accumulate):
            what = f"a batch of {section.batch} cannot be shared out to {world} process(es) in {accumulate} part(s)"
            raise SpecError("batch-split", what, where="data.batch", fits=f"a multiple of {world * accumulate}")
        self.section, self.seed, self.rank, self.world, self.accumulate = section, seed, rank, world, accumulate
        self.report = DamagedSamples()
        self.length, self.mixture = len(dataset), checked_mixture(dataset.mixture, len(dataset))
        self.names = input_names(dataset, section, names)
        self.cache, self.choices = cache, dataset.choices
        self._reader = Reader(dataset, section)

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

    def samples(self, step: int, part: int) -> list[tuple[int, int]]:
        """(epoch, index) of each row of a part."""
        first = step * self.section.batch
        return [place(self.seed, self.length, first + row, self.mixture) for row in self.rows(part)]

    def _keys(self, start: int) -> Iterator[tuple[int, int]]:
        return ((step, part) for step in count(start) for part in range(self.accumulate))

    def _pictures(self, start: int) -> Generator[Batch]:
        samples = (self.samples(*key) for key in self._keys(start))
        read = ahead(_Fetch(self._reader, self.seed), samples, self.section.workers)
        with closing(read):
            for (step, part), got in zip(self._keys(start), read, strict=True):
                if isinstance(got, LdmkitError):
                    raise got
                for row in got.rows:
                    self.report.add(row.damaged)
                yield self._batch(step, part, got.rows, images=unit(got.images))

    def _cached(self, start: int, cache: LatentCache) -> Generator[Batch]:
        for step, part in self._keys(start):
            rows, places = [], []
            for epoch, wanted in self.samples(step, part):
                index, damaged = cache.usable(wanted, self.mixture)
                places.append(index * cache.views + _view(self.seed, epoch, wanted, cache.views))
                name, inputs = cache.inputs(places[-1])
                rows.append(Row(name, None, inputs, damaged))
                self.report.add(damaged)
            latents, deviation = cache.latents(places)
            yield self._batch(step, part, rows, latents=latents, deviation=deviation)

    def _batch(
        self,
        step: int,
        part: int,
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
            inputs=[
                chosen_inputs(one_of(row.inputs, self.choices, self.seed, *place), self.names)
                for row, place in zip(rows, self.samples(step, part), strict=True)
            ],
            size=self.section.size,
            draws=Draws(self.seed, step, tuple(self.rows(part))),
        )


class _Fetch:
    """Reads the rows of a part; errors are returned. Goes to other processes."""

    def __init__(self, reader: Reader, seed: int) -> None:
        self.reader, self.seed = reader, seed

    def __call__(self, samples: Sequence[tuple[int, int]]) -> BatchPart | LdmkitError:
        random = self.reader.section.random
        try:
            rows = [
                self.reader.read(index, random_draw(self.seed, "view", epoch, index) if random else None)
                for epoch, index in samples
            ]
        except LdmkitError as problem:
            return problem
        return BatchPart(tuple(row._replace(image=None) for row in rows), stacked(rows))


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
    """The samples that `held_out` chooses, in their own order: centre crops, unmirrored; the draws are fixed.

    Raises:
        InputError: a damaged file; with `damaged: skip` it is left out, and an error only if none is left.
    """
    chosen = input_names(dataset, section, names)
    reader = Reader(dataset, section)
    indices = held_out(len(dataset), count)
    size = batch or min(VALIDATION_BATCH, section.batch)
    made: list[Batch] = []
    for first in range(0, len(indices), size):
        positions, rows = [], []
        for index in indices[first : first + size]:
            if not isinstance(row := reader.try_read(index, None), InputError):
                positions.append(index)
                rows.append(row)
        if rows:
            inputs = [chosen_inputs(one_of(row.inputs, dataset.choices), chosen) for row in rows]
            draws = Draws(seed, 0, tuple(positions))
            ids = tuple(row.id for row in rows)
            made.append(Batch(ids, unit(stacked(rows)), None, None, inputs, section.size, draws))
    if not made:
        raise InputError("no-samples", "no validation sample could be read", where="data.validation")
    return made


def _view(seed: int, epoch: int, index: int, views: int) -> int:
    return 0 if views == 1 else int(random_draw(seed, "cached-view", epoch, index).scale * views)
