"""Finds invalid inputs before the first step, not when their row is reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from PIL import Image

from ldmkit import Dataset, InputError, Sample, Stage
from ldmkit.contracts.data import plain
from ldmkit.contracts.wrapping import Wrapping
from ldmkit_training.data.batches import chosen_inputs, held_out, input_names, used_inputs
from ldmkit_training.data.captions import captioned
from ldmkit_training.data.choosing import each_of
from ldmkit_training.data.geometry import check_boxes
from ldmkit_training.data.identity import SPREAD
from ldmkit_training.data.places import replaced
from ldmkit_training.data.section import DataSection
from ldmkit_training.data.sources.lying import SpatialDataset, array_places, spatial_inputs_of, told_of
from ldmkit_training.data.sources.records import first_few


def checked_rows(stage: Stage, dataset: Dataset, section: DataSection, where: str, count: int | None = None) -> Dataset:
    """A source whose inputs the stage accepts. Inputs that need no picture to be decoded are parsed in every row,
    pictures and maps in `SPREAD` rows; files beside pictures (hints, masks) must exist. With `damaged: skip`, rows
    that do not fit are skipped like unreadable files.

    Args:
        where: the source's key in the recipe, for errors.
        count: number of rows in use, see `held_out`; None: all.

    Raises:
        InputError: `bad-rows`, with the number of rows and the problem of the first.
    """
    used = held_out(len(dataset), count)
    rows = len(used)
    names = input_names(dataset, section, stage.inputs)
    if not names:
        return dataset
    spread = sorted({used[i * rows // SPREAD] for i in range(SPREAD)})
    found = _unusable_rows(stage, dataset, section, names, spread)
    pictures = _picture_inputs(stage, dataset, section, names, spread, found)
    cheap = {name: new for name, new in names.items() if name not in pictures}
    if dataset.known(0) is not None and cheap:
        found = {**_unusable_rows(stage, dataset, section, cheap, used, known=True), **found}
    if isinstance(dataset, SpatialDataset):
        found |= {index: said for index in used if (said := dataset.absent(index)) is not None}
    if not found:
        return dataset
    if section.damaged == "stop" or len(found) == rows:
        first = found[min(found)]
        ids = first_few(dataset.id(index) for index in sorted(found))
        what = f"{len(found)} of {rows} samples have inputs that cannot be used: {ids}; the first: {first}"
        raise InputError("bad-rows", what, where=where, fits="data that are put right, or data.damaged: skip")
    return CheckedRows(dataset, dict(sorted(found.items())))


def check_cacheable(dataset: Dataset) -> None:
    """Check on `SPREAD` samples that the inputs of a source can be stored with cached latents.

    Raises:
        InputError: `not-cacheable`, naming the sample and the input.
    """
    places, count = array_places(dataset), len(dataset)
    for index in sorted({i * count // SPREAD for i in range(SPREAD)}):
        try:
            others = replaced(dataset.inputs(index), places, lambda value, place: None)
        except InputError:
            continue  # an unreadable file is skipped or raised, as `data.damaged` says, when it is read in training
        for name, value in others.items():
            plain(value, f"{dataset.id(index)}: {name}")


class CheckedRows(Wrapping):
    """A source with samples that cannot be used: reading one raises the error of a damaged file.

    Args:
        refused: index -> the problem.
    """

    def __init__(self, dataset: Dataset, refused: Mapping[int, str]) -> None:
        super().__init__(dataset)
        self.refused, self.lying = refused, spatial_inputs_of(dataset)
        self.beside, self.told_views = getattr(dataset, "beside", {}), told_of(dataset)
        ids = first_few(dataset.id(index) for index in refused)
        said = f"{len(refused)} sample(s) with inputs that cannot be used are skipped: {ids}; the first: "
        self.notes = (*dataset.notes, said + next(iter(refused.values())))

    def __getitem__(self, index: int) -> Sample:
        if index in self.refused:
            raise InputError("bad-file", self.refused[index], where=self.id(index))
        return self.dataset[index]

    @property
    def fingerprint(self) -> str:
        return f"{self.dataset.fingerprint}\nwithout {sorted(self.refused)}"


def _unusable_rows(
    stage: Stage,
    dataset: Dataset,
    section: DataSection,
    names: Mapping[str, str],
    rows: Iterable[int],
    *,
    known: bool = False,
) -> dict[int, str]:
    """Index -> the problem with a row's inputs; with `known`, only inputs that need no picture to be decoded."""
    found: dict[int, str] = {}
    for index in rows:
        try:
            inputs = (dataset.known(index) or {}) if known else dataset.inputs(index)
            for one in each_of(inputs, dataset.choices):
                stage.parsed(chosen_inputs(captioned(one, section.captions), names), dataset.id(index))
            check_boxes(inputs, dataset.geometry, dataset.id(index))
        except InputError as problem:
            if known and problem.code == "input.no-caption":  # it may be made of the picture
                found |= _unusable_rows(stage, dataset, section, names, [index])
                continue
            # an unreadable picture or map is skipped or raised, as `data.damaged` says, when it is read in training
            if known or problem.code != "input.bad-file":
                found[index] = str(problem)
    return found


def _picture_inputs(
    stage: Stage,
    dataset: Dataset,
    section: DataSection,
    names: Mapping[str, str],
    rows: Iterable[int],
    refused: Mapping[int, str],
) -> set[str]:
    """Names, in the data, of inputs that parse to pictures or maps."""
    maps = {name for name, rule in dataset.geometry.items() if rule == "map"}
    for index in rows:
        if index in refused:
            continue
        try:
            one = used_inputs(dataset.inputs(index), dataset.choices, section)
            parsed = stage.parsed(chosen_inputs(one, names), dataset.id(index))
        except InputError:
            continue
        return maps | {n for n, new in names.items() if _is_picture(parsed.get(new))}
    return maps


def _is_picture(value: object) -> bool:
    one = value[0] if isinstance(value, tuple) and value else value  # several pictures
    return isinstance(one, (torch.Tensor, Image.Image, Path))
