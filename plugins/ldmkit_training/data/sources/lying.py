"""Spatial inputs: pictures, masks, label maps and maps of values, cropped and flipped with the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from ldmkit import Dataset, Geometry, InputError, Sample, ValueMap, read_label_map, read_picture
from ldmkit.contracts.wrapping import Wrapping
from ldmkit.files.pictures import read_mask
from ldmkit.files.reading import check_ordinary
from ldmkit_training.data.places import Place, replaced

WHOLE_LEVEL = 1e-3
"""How far eight-bit levels may be off whole numbers by the rounding of float32."""


class SpatialInput(NamedTuple):
    """How an input lies on its picture.

    Args:
        kind: what it is read as: colours are resized as pictures are, maps of values bilinearly; of masks and labels,
            each pixel takes what is under its centre.
        size: (height, width) that it has beside a picture of the section's size.
    """

    kind: Literal["picture", "mask", "labels"] | ValueMap
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array that it becomes."""
        if isinstance(self.kind, ValueMap):
            return (*self.size, self.kind.channels)
        return (*self.size, 3) if self.kind == "picture" else self.size


class SpatialDataset(Wrapping):
    """A source whose inputs that lie on the picture are decoded; crops and mirrors are applied as to the picture.

    Args:
        lying: what is decoded.
        rules: geometry that takes the place of the source's own, by input name.
        notes: beside the source's own.
        beside: size of a bucket -> how inputs lie on its pictures, where they are of other sizes than `lying` has.
        told: inputs that say how each view of a picture was cut out, which the samples do not have themselves.
    """

    def __init__(
        self,
        dataset: Dataset,
        lying: Mapping[Place, SpatialInput],
        rules: Mapping[str, Geometry] = {},
        notes: Sequence[str] = (),
        beside: Mapping[tuple[int, int], Mapping[Place, SpatialInput]] = {},
        told: Sequence[str] = (),
    ) -> None:
        super().__init__(dataset)
        self.lying, self.rules, self.beside = dict(lying), dict(rules), dict(beside)
        self.told_views = tuple(told)
        self.geometry = {**dataset.geometry, **rules, **dict.fromkeys(told, "none")}
        sizes = {place: "" if beside else f", {lies.size[0]} x {lies.size[1]}" for place, lies in lying.items()}
        shown = (f"{place} ({lies.kind}{sizes[place]})" for place, lies in lying.items())
        moved = [f"cropped, mirrored and resized with their pictures: {', '.join(shown)}"] if lying else []
        self.notes = (*dataset.notes, *moved, *notes)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        return Sample(sample.id, sample.image, self._decoded(sample.inputs, sample.id))

    def inputs(self, index: int) -> Mapping[str, Any]:
        return self._decoded(self.dataset.inputs(index), self.id(index))

    def known(self, index: int) -> Mapping[str, Any] | None:
        known = self.dataset.known(index)
        apart = {place.name for place in self.lying}
        return None if known is None else {name: value for name, value in known.items() if name not in apart}

    def absent(self, index: int) -> str | None:
        """What is wrong with the files of sample `index` that can be told without opening them; None: nothing."""

        def looked(value: Any, place: Place) -> None:
            if isinstance(value, Path) or (isinstance(value, str) and not value.startswith("data:")):
                check_ordinary(Path(value), InputError, where=f"{self.id(index)}: {place} ({value})")

        try:
            replaced(self.dataset.known(index) or {}, self.lying, looked)
        except InputError as problem:
            return str(problem)
        return None

    @property
    def fingerprint(self) -> str:
        told = f" told {self.told_views}" if self.told_views else ""
        return f"{self.dataset.fingerprint}\n{sorted(self.lying.items())} {sorted(self.rules.items())}{told}"

    def _decoded(self, inputs: Mapping[str, Any], where: str) -> dict[str, Any]:
        return replaced(inputs, self.lying, lambda value, place: decoded(value, self.lying[place], f"{where}: {place}"))


def spatial_inputs_of(dataset: Dataset, size: tuple[int, int] | None = None) -> Mapping[Place, SpatialInput]:
    """What is decoded in a source; nothing where it was not laid.

    Args:
        size: of a bucket, beside whose pictures it lies; None: of the section.
    """
    found: Mapping[Place, SpatialInput] = getattr(dataset, "lying", {})
    beside: Mapping[tuple[int, int], Mapping[Place, SpatialInput]] = getattr(dataset, "beside", {})
    return found if size is None else beside.get(size, found)


def told_of(dataset: Dataset) -> tuple[str, ...]:
    """Inputs of a source that say how each view was cut out."""
    found: tuple[str, ...] = getattr(dataset, "told_views", ())  # of the source, or of the one that it wraps
    return found


def array_places(dataset: Dataset) -> list[Place]:
    """Where the inputs of a source's samples are arrays: its label maps, and what is decoded."""
    maps = [Place(name) for name, rule in dataset.geometry.items() if rule == "map"]
    return [*maps, *spatial_inputs_of(dataset)]


def decoded(raw: Any, lies: SpatialInput, where: str) -> np.ndarray:
    """A raw input as an array: colours (h,w,3) uint8 (floats in [0, 1] where they have more than eight bits), a mask
    (h,w) alike, labels (h,w) uint8 or uint16, values (h,w,channels) float32.

    Raises:
        InputError: `bad-file`.
    """
    try:
        if isinstance(lies.kind, ValueMap):
            return np.ascontiguousarray(np.moveaxis(lies.kind.read(raw, where).numpy(), 0, -1))
        if lies.kind == "labels":
            labels = read_label_map(raw, where).numpy()
            wide = int(labels.max()) > 255
            return labels if int(labels.max()) > 65535 else labels.astype(np.uint16 if wide else np.uint8)
        if lies.kind == "mask":
            return _eight_bits(read_mask(raw, where)[0].numpy())
        return _eight_bits((read_picture(raw, where).permute(1, 2, 0).numpy() + 1) / 2)
    except InputError as problem:
        named = where if problem.where in (None, where) else f"{where} ({problem.where})"
        raise InputError("bad-file", problem.what, where=named, fits=problem.fits) from None


def _eight_bits(values: np.ndarray) -> np.ndarray:
    levels = values * 255.0
    whole = np.rint(levels)
    return whole.astype(np.uint8) if float(np.abs(levels - whole).max()) < WHOLE_LEVEL else values.astype(np.float32)


def resized(
    values: np.ndarray,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    how: Image.Resampling = Image.Resampling.BICUBIC,
) -> np.ndarray:
    """The part (left, top, right, bottom) of eight-bit colours (h,w,3) or floats (h,w,channels) at (height, width),
    with antialiasing where it gets smaller; floats as bicubic colours stay within [0, 1]."""
    left, top, right, bottom = box
    x0, y0, x1, y1 = int(left), int(top), -int(-right // 1), -int(-bottom // 1)
    cut = np.ascontiguousarray(values[y0:y1, x0:x1])
    inner = (left - x0, top - y0, right - x0, bottom - y0)
    if cut.shape[:2] == size and inner == (0, 0, size[1], size[0]):
        return cut
    if cut.dtype == np.uint8:
        return np.asarray(Image.fromarray(cut).resize(size[::-1], how, box=inner))
    planes = [np.asarray(Image.fromarray(cut[..., c]).resize(size[::-1], how, box=inner)) for c in range(cut.shape[2])]
    whole = np.stack(planes, axis=2)
    return np.clip(whole, 0, 1) if how == Image.Resampling.BICUBIC else whole  # its weights may be negative
