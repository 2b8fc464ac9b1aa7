"""Which inputs of a model are spatially aligned with the picture, so that crops and flips apply to them too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

import numpy as np
from ldmkit_conditioners.layout import Layout
from ldmkit_conditioners.size_codes import Sizes
from pydantic import BaseModel, WithJsonSchema

from ldmkit import (
    Conditioner,
    Dataset,
    Geometry,
    HintPicture,
    LabelMap,
    LdmkitError,
    Mask,
    Picture,
    SetsSize,
    SpecError,
    Stage,
    ValueMap,
)
from ldmkit.files.value_maps import value_map_of
from ldmkit.models.abilities import able
from ldmkit.run.inputs import input_name
from ldmkit_training.data.buckets import buckets_of
from ldmkit_training.data.places import Place
from ldmkit_training.data.section import DataSection, renamed_names
from ldmkit_training.data.sources.located import Located
from ldmkit_training.data.sources.lying import SpatialDataset, SpatialInput
from ldmkit_training.stages.pipeline import PipelineStage, pipeline_in

KINDS: tuple[tuple[Any, Any], ...] = (
    *((Picture, "picture"), (HintPicture, "picture")),
    *((Mask, "mask"), (LabelMap, "labels")),
)
"""Types of raw inputs that are pictures, and how each is read."""

FLAT = ("plane", "residuals")
"""Kinds of signals that are spatially aligned with the latents, as their inputs are with the picture."""


def with_spatial_inputs(stage: Stage, dataset: Dataset, section: DataSection) -> Dataset:
    """A source whose inputs that lie on the picture move with it: boxes, maps, and pictures, masks, label maps and
    maps of values that are read for a signal that lies on the latents, or as `data.moves` says.

    Raises:
        SpecError: `not-moved`: an input that crops or mirrors would have to move and cannot.
    """
    return _SpatialInputs(stage, dataset, section).wrapped()


class _SpatialInputs:
    def __init__(self, stage: Stage, dataset: Dataset, section: DataSection) -> None:
        self.dataset, self.section = dataset, section
        # extracted hints are computed from the picture after it has been moved
        self.names = {name: new for name, new in renamed_names(dataset, section).items() if name not in section.extract}
        self.changes = [f"mirror: {section.mirror}"] if section.mirror > 0 else []
        self.changes += [f"fit: {section.fit}"] if section.fit in ("crop", "random-crop") else []
        pipeline = pipeline_in(stage)
        self.factor = 1 if pipeline is None else pipeline.codec.factor
        self.readers: dict[str, list[Conditioner]] = {}
        for name, part in {} if pipeline is None else pipeline.conditioners.items():
            self.readers.setdefault(input_name(name, pipeline.wiring[name]), []).append(part)
        buckets = buckets_of(dataset)
        self.sizes = () if buckets is None else buckets.sizes
        self.beside: dict[tuple[int, int], dict[Place, SpatialInput]] = {size: {} for size in self.sizes}
        self.mask = stage.mask if isinstance(stage, PipelineStage) else None
        self.lying: dict[Place, SpatialInput] = {}
        self.rules: dict[str, Geometry] = {}
        self.notes: list[str] = []
        self.told: list[str] = []

    def located(self) -> Dataset:
        """The source, with paths in its inputs that the model reads as pictures starting from the data's folder."""
        readers = [(name, part) for name, new in self.names.items() for part in self.readers.get(new, ())]
        places = {Place(name, field): None for name, part in readers for field, _ in picture_fields(part.Input)}
        places |= {Place(name): None for name, part in readers if lists_pictures(part.Input)}
        places |= {Place(name): None for name in self._masks()}
        places = {place: None for place in places if self.dataset.geometry[place.name] == "none"}
        return Located(self.dataset, places) if places else self.dataset

    def wrapped(self) -> Dataset:
        self._check_sizes()
        self.dataset = self.located()
        for name, new in self.names.items():
            for part in self.readers.get(new, ()):
                self._look(name, part)
        for name in self._masks():
            self._look_at_mask(name)
        changed = self.lying or self.rules or self.notes or self.told
        if not changed:
            return self.dataset
        beside = self.beside if self.lying else {}
        return SpatialDataset(self.dataset, self.lying, self.rules, self.notes, beside, self.told)

    def _masks(self) -> list[str]:
        """The data's inputs that weigh errors."""
        return [name for name, new in self.names.items() if new == self.mask]

    def _look_at_mask(self, name: str) -> None:
        """Masks must be aligned with their pictures, and of the same size."""
        if self.dataset.geometry[name] != "none" or self.section.moves.get(name) is False:
            what = f"the masks {name!r} do not lie on their pictures: {self.dataset.geometry[name]!r}"
            fits = "files of masks: a column of paths, or a `beside` source; and no `moves` for them"
            raise SpecError("mask-kind", what, where="objective.mask.input", fits=fits)
        for size, known in ((self.section.size, self.lying), *self.beside.items()):
            known[Place(name)] = SpatialInput("mask", size)

    def _look(self, name: str, part: Conditioner) -> None:
        said, rule = self.section.moves.get(name), self.dataset.geometry[name]
        if rule != "none" or said is False:
            self.rules |= {name: "none"} if said is False and rule != "none" else {}
            return
        if part.Input is Layout:
            self.rules |= {name: "boxes"} if self.changes else {}
            return
        found = {Place(name, field): kind for field, kind in picture_fields(part.Input)}
        if part.kind not in FLAT and said is None:
            if (found or lists_pictures(part.Input)) and self.changes:
                still = f"{name!r} is a picture that is read as {part.kind}: {' and '.join(self.changes)} leaves it"
                self.notes.append(f"{still} as it is (data.moves: {{{name}: true}} moves it)")
            return
        if not found:
            if self.changes or said:
                self._refuse(name)
            return
        for place, kind in found.items():
            self._check_mirror(name, place, kind)
            for size, known in ((self.section.size, self.lying), *self.beside.items()):
                lies = SpatialInput(kind, spatial_size(part, found, size, self.factor))
                if known.setdefault(place, lies) != lies:
                    self._refuse(name, f"as {lies.kind} of {lies.size} and as {known[place].kind} of another size")

    def _check_sizes(self) -> None:
        """A network that is told how its pictures were cropped is told of each view's own crop, where the data say
        nothing of it; what they say is the same for every view, and must not be another crop than theirs."""
        given = set(self.names.values())
        for new, parts in self.readers.items():
            reads = {name for part in parts if part.Input is Sizes for name in part.config.reads}
            crops = self.section.fit in ("crop", "random-crop")
            if not reads & {"original", "crop"} or self.section.fit == "exact" or self._stays(new):
                continue
            if new not in given and all(part.Input is Sizes for part in parts) and new not in self.dataset.geometry:
                self.told.append(new)
                where = ", and of where its crop begins" if crops else ""
                self.notes.append(f"{new}: the model is told of each picture's own size{where}")
                continue
            if not crops and (self.section.mirror == 0 or new not in given):
                continue
            what = (
                f"the model is told of each picture's size and crop ({new!r}), which {' and '.join(self.changes)} sets"
            )
            fits = "fit: resize or exact, without a mirror where the data give sizes"
            fits += f"; moves: {{{new}: false}} where the data's are right for every view"
            raise SpecError("sizes-of-crops", f"{what}, and no one tells it", where="data.fit", fits=fits)

    def _stays(self, new: str) -> bool:
        return any(self.section.moves.get(name) is False for name, known in self.names.items() if known == new)

    def _check_mirror(self, name: str, place: Place, kind: Any) -> None:
        if self.section.mirror > 0 and isinstance(kind, ValueMap) and kind.signs is None:
            what = f"the map {str(place)!r} may have components along x, and does not say what a mirror does to them"
            fits = (
                "its conditioner's ValueMap(mirror=...), -1 for such a channel and 1 for others; mirror: 0; or, if it"
            )
            fits += f" does not lie on the picture, moves: {{{name}: false}}"
            raise SpecError("not-mirrored", what, where="data.mirror", fits=fits)

    def _refuse(self, name: str, how: str = "with it") -> None:
        new, changes = self.names[name], self.changes or ["moves"]
        what = f"the input {new!r} lies on the picture, and cannot be moved {how} under {' and '.join(changes)}"
        fits = "a picture, a mask, a label map, a map of values or boxes; mirror: 0 and fit: exact or resize; or, if it"
        fits += f" does not lie there, moves: {{{name}: false}}"
        raise SpecError("not-moved", what, where=f"data.{changes[0].partition(':')[0]}", fits=fits)


def picture_fields(kind: Any) -> Iterator[tuple[str | None, Any]]:
    """(field, kind) of every picture, mask, label map or map of values in a type of raw input; field None: it is one
    itself."""
    if (own := _picture_kind(kind)) is not None:
        yield None, own
        return
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        hints: Mapping[str, Any] = get_type_hints(kind, include_extras=True)
        for field in kind.model_fields:
            for inner in (hints.get(field), *get_args(hints.get(field))):
                if (found := _picture_kind(inner)) is not None:
                    yield field, found
                    break


def lists_pictures(kind: Any) -> bool:
    """Whether a type of raw input is one of several pictures or masks, or one of them."""
    marks = (mark.json_schema for mark in get_args(kind)[1:] if isinstance(mark, WithJsonSchema))
    return _picture_kind(kind) is None and any((mark or {}).get("format") == "picture" for mark in marks)


def _picture_kind(kind: Any) -> Any | None:
    named = next((name for known, name in KINDS if kind == known), None)
    return value_map_of(kind) if named is None else named


def spatial_size(part: Conditioner, places: Mapping[Place, Any], size: tuple[int, int], factor: int) -> tuple[int, int]:
    """(height, width) that a conditioner's input has beside pictures of a size: the one that it asks for with
    `picture_size`, and the picture's own where it does not say."""
    wanted = _asked(part, places, size, factor)
    if wanted is None or 0 in wanted:
        return size
    height, width = (max(1, round(side * side / asked)) for side, asked in zip(size, wanted, strict=True))
    return (height, width) if _asked(part, places, (height, width), factor) == size else size


def _asked(
    part: Conditioner, places: Mapping[Place, Any], size: tuple[int, int], factor: int
) -> tuple[int, int] | None:
    """The picture size that a uniform input of a given size asks for (black, or the middle of its range)."""
    if (sizing := able(part, SetsSize)) is None:
        return None
    made = {place.field: _even(kind, size) for place, kind in places.items()}
    try:
        return sizing.picture_size(part.parse(made.get(None, made), "data"), factor)
    except LdmkitError:
        return None  # the input has other parts than its picture, or this size is not accepted


def _even(kind: Any, size: tuple[int, int]) -> np.ndarray:
    if isinstance(kind, ValueMap):
        return np.full((*size, kind.channels), (kind.low + kind.high) / 2, dtype=np.float32)
    return np.zeros((*size, 3) if kind == "picture" else size, dtype=np.uint8)
