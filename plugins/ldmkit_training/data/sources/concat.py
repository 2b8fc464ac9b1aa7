"""Several sources one after another as one."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from ldmkit import Data, Dataset, Example, Geometry, InputError, PartSpec, Sample, SpecError, build_value
from ldmkit_training.data.numbering import check_numbering
from ldmkit_training.data.order import Mixture
from ldmkit_training.data.section import open_part
from ldmkit_training.data.sources.conventions import MOST_REPEATS
from ldmkit_training.data.sources.records import Missing, first_few

MOST_DRAWS = 1_000_000
"""Draws after which a mixture repeats: they are put in order at once."""

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ConcatData(Data):
    """Part `concat`: the samples of several sources, one source after another; ids tell the source (`1/red.png`).

    Args:
        sources: parts of kind `data`, with the same inputs.
        weights: of so many draws so many are of each source: [3, 1] takes three of four samples from the first, however
            large it is, and each source has epochs of its own. Null: every epoch has each sample of all once.
        repeats: each sample of a source so many times in an epoch of all, one number a source, in place of weights.
        missing: where a source has not an input that another has: an error, or allowed and stated: its samples lack
            that input, and the model gets its null.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example({"sources": [{"type": "folder", "config": {"folder": name}} for name in ("one", "two")]}),
        Example(
            {
                "sources": [
                    {"type": "classes", "config": {"folder": "pictures", "name": "time"}},
                    {"type": "folder", "config": {"folder": "others"}},
                ],
                "weights": [3, 1],
                "missing": "allow",
            }
        ),
    )

    sources: tuple[PartSpec, ...] = Field(min_length=2)
    weights: tuple[Weight, ...] | None = None
    repeats: tuple[Annotated[int, Field(ge=1, le=MOST_REPEATS)], ...] | None = None
    missing: Missing = "error"

    @model_validator(mode="after")
    def _consistent(self) -> ConcatData:
        if self.repeats is not None:
            if self.weights is not None:
                raise ValueError("weights and repeats both say how often a source is drawn: one of them")
            if len(self.repeats) != len(self.sources):
                raise ValueError(f"{len(self.repeats)} repeats for {len(self.sources)} sources")
        if self.weights is not None:
            if len(self.weights) != len(self.sources):
                raise ValueError(f"{len(self.weights)} weights for {len(self.sources)} sources")
            whole = _whole(self.weights)
            if sum(whole) > MOST_DRAWS:
                what = f"weights {list(self.weights)} come out even only after {sum(whole)} draws"
                raise ValueError(f"{what}: take rounder ones, such as [3, 1] or [0.75, 0.25]")
        return self

    def open(self, folder: Path) -> ConcatDataset:
        names = [f"sources[{i}] ({spec.type})" for i, spec in enumerate(self.sources)]
        opened = [open_part(spec, folder, f"concat.{name}") for spec, name in zip(self.sources, names, strict=True)]
        notes = [f"{name}: {note}" for name, dataset in zip(names, opened, strict=True) for note in dataset.notes]
        for number, (name, dataset) in enumerate(zip(names, opened, strict=True)):
            for before, other in zip(names[:number], opened[:number], strict=True):
                _check_geometry(before, other, name, dataset)
                check_numbering(before, other, name, dataset, "concat")
        notes += self._lacking(opened, names)
        mixture = self._mixture(opened, names)
        drawn = dict.fromkeys(range(len(opened)), 0)
        owners = [number for number, dataset in enumerate(opened) for _ in dataset.mixture or ((),)]
        for number, (_, draws) in zip(owners, mixture, strict=bool(mixture)):
            drawn[number] += draws
        for number, (name, dataset) in enumerate(zip(names, opened, strict=True)):
            share = f", {drawn[number] / sum(drawn.values()):.3g} of the draws" if mixture else ""
            times = f", {self.repeats[number]} times each" if self.repeats else ""
            notes.append(f"{name}: {len(dataset)} samples{times}{share}")
        return ConcatDataset(opened, mixture, notes)

    def _mixture(self, opened: Sequence[Dataset], names: Sequence[str]) -> Mixture:
        """(samples, draws) of each stretch; of a source that repeats its own samples, those of its stretches.

        Raises:
            SpecError: `weights-twice`: a source has weights of its own, which say no number an epoch; `mixture`: the
                numbers come out even too late.
        """
        if self.weights is None and self.repeats is None and not any(dataset.mixture for dataset in opened):
            return ()
        found: list[tuple[int, Fraction]] = []
        for number, (name, dataset) in enumerate(zip(names, opened, strict=True)):
            inner = dataset.mixture or ((len(dataset), len(dataset)),)
            if self.weights is not None:
                once = Fraction(repr(self.weights[number])) / sum(draws for _, draws in inner)
            elif all(draws % size == 0 for size, draws in inner):
                once = Fraction(1 if self.repeats is None else self.repeats[number])
            else:
                what = f"{name} has weights of its own"
                fits = "all sources and weights in one concat, or weights here"
                raise SpecError("weights-twice", what, where="concat", fits=fits)
            found += [(size, once * draws) for size, draws in inner]
        whole = _whole([draws for _, draws in found])
        if sum(whole) > MOST_DRAWS:
            what = f"the shares of {len(whole)} sources and folders come out even only after {sum(whole)} draws"
            raise SpecError("mixture", what, where="concat", fits="weights in rounder numbers, such as [3, 1]")
        return tuple((size, draws) for (size, _), draws in zip(found, whole, strict=True))

    def _lacking(self, opened: Sequence[Dataset], names: Sequence[str]) -> list[str]:
        """Which source lacks which input of another.

        Raises:
            InputError: `missing-counterpart`.
        """
        owner = {
            key: name for dataset, name in reversed(list(zip(opened, names, strict=True))) for key in dataset.geometry
        }
        said = []
        for dataset, name in zip(opened, names, strict=True):
            if lacks := [key for key in owner if key not in dataset.geometry]:
                said.append(f"{name} has no input {first_few(lacks)}, which {owner[lacks[0]]} has")
        if said and self.missing == "error":
            fits = "missing: allow, for samples that train with that input's null; or sources with the same inputs"
            raise InputError("missing-counterpart", "; ".join(said), where="concat", fits=fits)
        return said

    def write_example(self, folder: Path) -> None:
        for spec in self.sources:
            source: Data = build_value("data", spec, "concat")
            source.write_example(folder)


class ConcatDataset(Dataset):
    """Indices go on from one source to the next.

    Args:
        mixture: of all samples, see `ldmkit.Dataset.mixture`.
    """

    def __init__(self, sources: Sequence[Dataset], mixture: Mixture, notes: Sequence[str]) -> None:
        self.sources, self.notes = tuple(sources), tuple(notes)
        self.geometry: Mapping[str, Geometry] = {k: rule for source in sources for k, rule in source.geometry.items()}
        self.numbering = {k: names for source in sources for k, names in source.numbering.items()}
        self.mixture = mixture
        self.choices = frozenset[str]().union(*(source.choices for source in sources))
        self._ends = list(accumulate(map(len, sources)))

    def __len__(self) -> int:
        return self._ends[-1]

    def _at(self, index: int) -> tuple[int, Dataset, int]:
        """Position of the sample's source, the source, and the sample's index in it."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._ends, index)
        return number, self.sources[number], index - (self._ends[number - 1] if number else 0)

    def id(self, index: int) -> str:
        number, source, place = self._at(index)
        return f"{number}/{source.id(place)}"

    def __getitem__(self, index: int) -> Sample:
        _, source, place = self._at(index)
        sample = source[place]
        return Sample(self.id(index), sample.image, sample.inputs)

    def inputs(self, index: int) -> Mapping[str, Any]:
        _, source, place = self._at(index)
        return source.inputs(place)

    def known(self, index: int) -> Mapping[str, Any] | None:
        _, source, place = self._at(index)
        return source.known(place)

    def content(self, index: int) -> tuple[bytes, bytes] | None:
        _, source, place = self._at(index)
        return source.content(place)

    def picture_size(self, index: int) -> tuple[int, int] | None:
        _, source, place = self._at(index)
        return source.picture_size(place)

    def base(self, index: int, name: str) -> Path | None:
        _, source, place = self._at(index)
        return source.base(place, name)

    @property
    def fingerprint(self) -> str:
        return "\n".join(source.fingerprint for source in self.sources)


def _check_geometry(one: str, first: Dataset, other: str, second: Dataset) -> None:
    for key, rule in second.geometry.items():
        if (before := first.geometry.get(key, rule)) != rule:
            what = f"the input {key!r} is of kind {before!r} in {one} and {rule!r} in {other}"
            raise SpecError("inputs-differ", what, where="concat", fits="another `name` in one of them")


def _whole(weights: Sequence[float | Fraction]) -> list[int]:
    """Weights as the smallest whole numbers in these proportions; 0.1 is a tenth, as it is written."""
    exact = [weight if isinstance(weight, Fraction) else Fraction(repr(weight)) for weight in weights]
    scale = math.lcm(*(one.denominator for one in exact))
    whole = [int(one * scale) for one in exact]
    return [number // math.gcd(*whole) for number in whole]
