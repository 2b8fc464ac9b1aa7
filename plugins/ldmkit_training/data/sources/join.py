"""Several sources about the same pictures as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import Field

from ldmkit import Data, Dataset, Example, Geometry, InputError, PartSpec, Sample, SpecError, build_value
from ldmkit_training.data.identity import joined
from ldmkit_training.data.section import open_part
from ldmkit_training.data.sources.finding import stem
from ldmkit_training.data.sources.records import Missing, check_map, missing_notes

CONCAT = "type: concat, where the pictures of all are wanted, one source after another"


class JoinData(Data):
    """Part `join`: samples of the same name in several sources become one sample with the inputs of all.

    The pictures are the first source's, and so are the samples; what another source has beside them is not used.

    Args:
        sources: parts of kind `data`.
        by: what must agree: `name`, the file's name without its ending, or `path`, the folders above it too.
        missing: where a source lacks a sample that another has: an error, or allowed and stated: the sample lacks
            that source's inputs, or, if it is the first source that lacks it, is left out.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {
                "sources": [
                    {"type": "classes", "config": {"folder": "pictures", "classes": ["day", "night"]}},
                    {"type": "maps", "config": {"pictures": "other", "maps": "maps"}},
                ],
                "missing": "allow",
            }
        ),
    )

    sources: tuple[PartSpec, ...] = Field(min_length=2)
    by: Literal["name", "path"] = "name"
    missing: Missing = "error"

    def open(self, folder: Path) -> JoinedDataset:
        names = [f"sources[{i}] ({spec.type})" for i, spec in enumerate(self.sources)]
        opened = [open_part(spec, folder, f"join.{name}") for spec, name in zip(self.sources, names, strict=True)]
        keyed = [self._keyed(dataset, name) for dataset, name in zip(opened, names, strict=True)]
        self._check_joined(opened, names)
        owner: dict[str, str] = {}
        notes = [note for dataset in opened for note in dataset.notes]
        first = keyed[0]
        if not any(key in other for other in keyed[1:] for key in first):
            what = f"no name is in two sources: {next(iter(first))!r}, {next(iter(keyed[1]))!r} ..."
            fits = f"the same names; they are compared by {self.by}; or {CONCAT}"
            raise InputError("nothing-joined", what, where="join", fits=fits)
        for dataset, keys, name in zip(opened, keyed, names, strict=True):
            for key in dataset.geometry:
                if key in owner:
                    what = f"{owner[key]} and {name} both have the input {key!r}"
                    fits = f"another `name` in one of them; or {CONCAT}"
                    raise SpecError("input-twice", what, where="join", fits=fits)
                owner[key] = name
            notes += missing_notes(
                [key for key in first if key not in keys], "sample(s) are not in it", self.missing, name
            )
            notes += missing_notes(
                [key for key in keys if key not in first], "sample(s) have no picture", self.missing, name
            )
        return JoinedDataset(opened, [[keys.get(key) for keys in keyed] for key in first], notes)

    @staticmethod
    def _check_joined(opened: Sequence[Dataset], names: Sequence[str]) -> None:
        """A source behind the first that has no input would only lose its pictures, and its weights have no effect."""
        for dataset, name in zip(opened[1:], names[1:], strict=True):
            if not dataset.geometry:
                what = f"{name} has pictures and no input: joined, its pictures would be lost"
                fits = f"a source with inputs of its own; or {CONCAT}"
                raise InputError("nothing-joined", what, where="join", fits=fits)
            if dataset.mixture:
                what = f"{name} has weights, and which samples are drawn is the first source's business"
                raise SpecError("join-weights", what, where="join", fits="weights in the first source, or none")

    def write_example(self, folder: Path) -> None:
        for spec in self.sources:
            source: Data = build_value("data", spec, "join")
            source.write_example(folder)

    def _keyed(self, dataset: Dataset, where: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for index in range(len(dataset)):
            name = stem(dataset.id(index))
            key = PurePosixPath(name).name if self.by == "name" else name
            if key in found:
                what = f"{dataset.id(found[key])!r} and {dataset.id(index)!r} are both {key!r}"
                fits = "by: path" if self.by == "name" else "names of their own"
                raise InputError("file-twice", what, where=where, fits=fits)
            found[key] = index
        return found


class JoinedDataset(Dataset):
    """Rows of indices, one a source; None where a source lacks the sample."""

    def __init__(self, sources: Sequence[Dataset], rows: Sequence[Sequence[int | None]], notes: Sequence[str]) -> None:
        self.sources, self.rows, self.notes = sources, rows, tuple(notes)
        self.geometry: Mapping[str, Geometry] = {k: rule for source in sources for k, rule in source.geometry.items()}
        self.numbering = {k: names for source in sources for k, names in source.numbering.items()}
        self.choices = frozenset[str]().union(*(source.choices for source in sources))
        self.mixture = sources[0].mixture  # its samples are the first source's, in their order

    def __len__(self) -> int:
        return len(self.rows)

    def id(self, index: int) -> str:
        place = self.rows[index][0]
        assert place is not None
        return self.sources[0].id(place)

    def __getitem__(self, index: int) -> Sample:
        place = self.rows[index][0]
        assert place is not None
        first = self.sources[0][place]
        others = self._others(index)
        for name, value in others.items():
            if self.geometry.get(name) == "map":
                check_map(value, first.image, f"{first.id}: {name}")
        return Sample(first.id, first.image, {**first.inputs, **others})

    def inputs(self, index: int) -> dict[str, Any]:
        place = self.rows[index][0]
        assert place is not None
        return {**self.sources[0].inputs(place), **self._others(index)}

    def known(self, index: int) -> dict[str, Any] | None:
        found: dict[str, Any] = {}
        for source, place in zip(self.sources, self.rows[index], strict=True):
            if place is not None:
                some = source.known(place)
                if some is None:
                    return None
                found |= some
        return found

    def picture_size(self, index: int) -> tuple[int, int] | None:
        place = self.rows[index][0]
        assert place is not None
        return self.sources[0].picture_size(place)

    def content(self, index: int) -> tuple[bytes, bytes] | None:
        places = zip(self.sources, self.rows[index], strict=True)
        parts = [source.content(place) for source, place in places if place is not None]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return joined([part[0] for part in known]), joined([part[1] for part in known])

    def base(self, index: int, name: str) -> Path | None:
        found = zip(self.sources, self.rows[index], strict=True)
        place = next(((s, at) for s, at in found if name in s.geometry and at is not None), None)
        return None if place is None else place[0].base(place[1], name)

    @property
    def fingerprint(self) -> str:
        return "\n".join(source.fingerprint for source in self.sources)

    def _others(self, index: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for source, place in zip(self.sources[1:], self.rows[index][1:], strict=True):
            if place is not None:
                found |= source.inputs(place)
        return found
