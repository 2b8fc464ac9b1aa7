"""Pictures, masks and label maps beside a picture, in files of their own: cropped and mirrored with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from ldmkit.data import Dataset, Geometry, Sample
from ldmkit.errors import InputError
from ldmkit.pictures import read_label_map, read_mask, read_picture
from ldmkit_training.data.identity import file_bytes, joined, known_bytes
from ldmkit_training.data.records import stamp
from ldmkit_training.data.wrapping import Wrapping

WHOLE_LEVEL = 1e-3
"""How far eight-bit levels may be off whole numbers by the rounding of float32."""


class Lying(NamedTuple):
    """How an input lies on its picture.

    Args:
        kind: what it is read as: colours are resized as pictures are; of masks and labels, each pixel takes what is
            under its centre.
        size: (height, width) that it has beside a picture of the section's size.
    """

    kind: Literal["picture", "mask", "labels"]
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array that it becomes."""
        return (*self.size, 3) if self.kind == "picture" else self.size


class Place(NamedTuple):
    """An input, or a field of one that is a mapping."""

    name: str
    field: str | None = None

    def __str__(self) -> str:
        return self.name if self.field is None else f"{self.name}.{self.field}"


class Laid(Wrapping):
    """A source whose inputs that lie on the picture are decoded; crops and mirrors are applied as to the picture.

    Args:
        lying: what is decoded.
        rules: geometry that takes the place of the source's own, by input name.
        notes: beside the source's own.
    """

    def __init__(
        self,
        dataset: Dataset,
        lying: Mapping[Place, Lying],
        rules: Mapping[str, Geometry] = {},
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(dataset)
        self.lying, self.rules = dict(lying), dict(rules)
        self.geometry = {**dataset.geometry, **rules}
        shown = (f"{place} ({lies.kind}, {lies.size[0]} x {lies.size[1]})" for place, lies in lying.items())
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

    def content(self, index: int) -> tuple[bytes, bytes] | None:
        found, known = self.dataset.content(index), self.dataset.known(index)
        if found is None or known is None:
            return None
        files: list[bytes] = []

        def taken(value: Any, place: Place) -> str:
            found = file_bytes(Path(value)) if _is_file(value) else known_bytes({"value": value})
            files.append(f"{place}:".encode() + found)
            return str(place)

        others = replaced(known, self.lying, taken)
        return known_bytes(others), joined([found[1], *files])

    @property
    def fingerprint(self) -> str:
        parts = [self.dataset.fingerprint, f"{sorted(self.lying.items())} {sorted(self.rules.items())}"]

        def stamped(value: Any, _: Place) -> Any:
            if _is_file(value):
                parts.append(stamp(Path(value)))
            return value

        for index in range(len(self) if self.lying else 0):
            replaced(self.dataset.known(index) or {}, self.lying, stamped)
        return "\n".join(parts)

    def _decoded(self, inputs: Mapping[str, Any], where: str) -> dict[str, Any]:
        return replaced(inputs, self.lying, lambda value, place: decoded(value, self.lying[place], f"{where}: {place}"))


def lying_of(dataset: Dataset) -> Mapping[Place, Lying]:
    """What is decoded in a source; nothing where it was not laid."""
    found: Mapping[Place, Lying] = getattr(dataset, "lying", {})
    return found


def array_places(dataset: Dataset) -> list[Place]:
    """Where the inputs of a source's samples are arrays: its label maps, and what is decoded."""
    maps = [Place(name) for name, rule in dataset.geometry.items() if rule == "map"]
    return [*maps, *lying_of(dataset)]


def _is_file(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and not value.startswith("data:"))


def replaced(inputs: Mapping[str, Any], places: Iterable[Place], make: Callable[[Any, Place], Any]) -> dict[str, Any]:
    """Inputs with what stands at some places replaced by `make(value, place)`; places that are absent stay so."""
    made = dict(inputs)
    for place in places:
        name, field = place
        if name not in made:
            continue
        if field is None:
            made[name] = make(made[name], place)
        elif isinstance(made[name], Mapping) and made[name].get(field) is not None:
            made[name] = {**made[name], field: make(made[name][field], place)}
    return made


def decoded(raw: Any, lies: Lying, where: str) -> np.ndarray:
    """A raw input as an array: colours (h,w,3) uint8 (floats in [0, 1] where they have more than eight bits), a mask
    (h,w) alike, labels (h,w) uint8 or uint16.

    Raises:
        InputError: `bad-file`.
    """
    try:
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


def resized(values: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """The part (left, top, right, bottom) of colours (h,w,3), eight bits or floats in [0, 1], at (height, width):
    bicubic, with antialiasing where it gets smaller."""
    left, top, right, bottom = box
    x0, y0, x1, y1 = int(left), int(top), -int(-right // 1), -int(-bottom // 1)
    cut = np.ascontiguousarray(values[y0:y1, x0:x1])
    inner = (left - x0, top - y0, right - x0, bottom - y0)
    if cut.shape[:2] == size and inner == (0, 0, size[1], size[0]):
        return cut
    how = Image.Resampling.BICUBIC
    if cut.dtype == np.uint8:
        return np.asarray(Image.fromarray(cut).resize(size[::-1], how, box=inner))
    planes = [np.asarray(Image.fromarray(cut[..., c]).resize(size[::-1], how, box=inner)) for c in range(cut.shape[2])]
    return np.clip(np.stack(planes, axis=2), 0, 1)
