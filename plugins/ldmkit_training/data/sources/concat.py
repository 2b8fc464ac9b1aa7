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
from ldmkit_training.data.section import open_part
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
    missing: Missing = "error"

    @model_validator(mode="after")
    def _consistent(self) -> ConcatData:
        if self.weights is not None:
            if len(self.weights) != len(self.sources):
                raise ValueError(f"{len(self.weights)} weights for {len(self.sources)} sources")
            if sum(_whole(self.weights)) > MOST_DRAWS:
                what = f"weights {list(self.weights)} come out even only after {sum(_whole(self.weights))} draws"
                raise ValueError(f"{what}: take rounder ones, such as [3, 1] or [0.75, 0.25]")
        return self

    def open(self, folder: Path) -> ConcatDataset:
        names = [f"sources[{i}] ({spec.type})" for i, spec in enumerate(self.sources)]
        opened = [open_part(spec, folder, f"concat.{name}") for spec, name in zip(self.sources, names, strict=True)]
        notes = [f"{name}: {note}" for name, dataset in zip(names, opened, strict=True) for note in dataset.notes]
        for name, dataset in zip(names, opened, strict=True):
            if dataset.mixture:
                what = f"{name} has weights of its own"
                raise SpecError("weights-twice", what, where="concat", fits="all sources and weights in one concat")
        for number, (name, dataset) in enumerate(zip(names, opened, strict=True)):
            for before, other in zip(names[:number], opened[:number], strict=True):
                _check_geometry(before, other, name, dataset)
                check_numbering(before, other, name, dataset, "concat")
        notes += self._lacking(opened, names)
        draws = None if self.weights is None else _whole(self.weights)
        for number, (name, dataset) in enumerate(zip(names, opened, strict=True)):
            share = f", {draws[number] / sum(draws):.3g} of the draws" if draws else ""
            notes.append(f"{name}: {len(dataset)} samples{share}")
        return ConcatDataset(opened, draws, notes)

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
        draws: of their sum so many draws are of each source; None: each sample once an epoch.
    """

    def __init__(self, sources: Sequence[Dataset], draws: Sequence[int] | None, notes: Sequence[str]) -> None:
        self.sources, self.notes = tuple(sources), tuple(notes)
        self.geometry: Mapping[str, Geometry] = {k: rule for source in sources for k, rule in source.geometry.items()}
        self.numbering = {k: names for source in sources for k, names in source.numbering.items()}
        self.mixture = tuple(zip(map(len, sources), draws, strict=True)) if draws else ()
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


def _whole(weights: Sequence[float]) -> list[int]:
    """Weights as the smallest whole numbers in these proportions; 0.1 is a tenth, as it is written."""
    exact = [Fraction(repr(weight)) for weight in weights]
    scale = math.lcm(*(one.denominator for one in exact))
    whole = [int(one * scale) for one in exact]
    return [number // math.gcd(*whole) for number in whole]
