"""Labels that are positions in a list of classes: the same number is the same class in all data of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ldmkit import Dataset, InputError, Sample, suggest
from ldmkit.contracts.wrapping import Wrapping


def check_numbering(one: str, first: Dataset, other: str, second: Dataset, where: str) -> None:
    """Labels that are numbers mean the same in two sources.

    Raises:
        InputError: `numbering`: a number is one class here and another there.
    """
    for key, names in second.numbering.items():
        before = first.numbering.get(key)
        if before is None or tuple(before) == tuple(names):
            continue
        wrong = next((i for i, pair in enumerate(zip(before, names, strict=False)) if pair[0] != pair[1]), None)
        if wrong is None:
            what = f"{key!r} numbers {len(before)} classes in {one} and {len(names)} in {other}"
        else:
            what = f"{key!r} {wrong} is {before[wrong]!r} in {one} and {names[wrong]!r} in {other}"
        fits = "the same list of classes in both (`classes: [...]`), or names in place of numbers (numbers: false)"
        raise InputError("numbering", what, where=where, fits=fits)


def numbered_like(train: Dataset, validation: Dataset) -> Dataset:
    """Held-out data whose labels are numbered as in training.

    Raises:
        InputError: `no-class`: a class that training does not have.
    """
    moved: dict[str, list[int]] = {}
    for key, names in validation.numbering.items():
        known = train.numbering.get(key)
        if known is None or tuple(known) == tuple(names):
            continue
        place = {name: number for number, name in enumerate(known)}
        for name in names:
            if name not in place:
                what = f"{key!r} has the class {name!r}, which data.train does not have"
                raise InputError("no-class", what, where="data.validation", fits=suggest(name, known))
        moved[key] = [place[name] for name in names]
    return Renumbered(validation, moved, train.numbering) if moved else validation


class Renumbered(Wrapping):
    """A source with other numbers for its classes.

    Args:
        moved: input -> new number of each old one.
        numbering: as it then is.
    """

    def __init__(
        self, dataset: Dataset, moved: Mapping[str, Sequence[int]], numbering: Mapping[str, Sequence[str]]
    ) -> None:
        super().__init__(dataset)
        self.moved, self.numbering = moved, {**dataset.numbering, **{k: numbering[k] for k in moved}}
        said = f"classes of {', '.join(map(repr, moved))} are numbered as in data.train, not by their own list"
        self.notes = (*dataset.notes, said)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        return Sample(sample.id, sample.image, self._changed(sample.inputs))

    def inputs(self, index: int) -> Mapping[str, Any]:
        return self._changed(self.dataset.inputs(index))

    def known(self, index: int) -> Mapping[str, Any] | None:
        found = self.dataset.known(index)
        return None if found is None else self._changed(found)

    @property
    def fingerprint(self) -> str:
        return f"{self.dataset.fingerprint}\nnumbered {sorted(self.moved.items())}"

    def _changed(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(inputs)
        for key, numbers in self.moved.items():
            if key not in found:
                continue
            if self.geometry[key] == "boxes":
                found[key] = [{**box, "label": numbers[box["label"]]} for box in found[key]]
            else:
                found[key] = numbers[found[key]]
        return found
