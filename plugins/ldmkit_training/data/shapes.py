"""What a recipe makes of pictures, from their headers: stretched, enlarged, hardly seen, or never come to by a run; and
of the files that lie on them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from ldmkit import Dataset, InputError
from ldmkit_training.data.batches import Batches, held_out
from ldmkit_training.data.buckets import size_for
from ldmkit_training.data.geometry import window
from ldmkit_training.data.places import Place, replaced
from ldmkit_training.data.section import DataSection
from ldmkit_training.data.sources.lying import spatial_inputs_of
from ldmkit_training.data.sources.records import first_few

Size = tuple[int, int]

MOST = 1000
"""Pictures whose headers are read, at equal distances (0.1 s or so)."""
MOST_DECODED = 16
"""The same of sources that cannot tell a size without decoding."""
MOST_BESIDE = 64
"""Samples whose hints, masks and maps are decoded."""
STRETCHED = 1.1
"""Proportions that change by more are said."""
HARDLY = 0.5
"""Of a picture: where a crop sees less, it is said."""


def sizes_of(dataset: Dataset) -> list[Size]:
    """(height, width) of pictures of a source; damaged ones are left out: they are met when their turn comes."""
    found = [dataset.picture_size(index) for index in held_out(len(dataset), MOST)]
    known = [size for size in found if size is not None]
    if known:
        return known
    decoded: list[Size] = []
    for index in held_out(len(dataset), MOST_DECODED):
        try:
            height, width = dataset[index].image.shape[:2]
        except InputError:
            continue
        decoded.append((height, width))
    return decoded


def said_of_sizes(section: DataSection, dataset: Dataset) -> list[str]:
    """What is to be said of a source's pictures before they are trained on."""
    sizes = sizes_of(dataset)
    among = f"{len(sizes)} pictures" + ("" if len(sizes) == len(dataset) else " looked at")
    size = f"{section.size[0]}x{section.size[1]}"
    return [said for said in (_stretched(section, sizes, among, size), _enlarged(section, sizes, among, size)) if said]


def _stretched(section: DataSection, sizes: list[Size], among: str, size: str) -> str:
    """Where the recipe does not say that it is meant."""
    if "fit" in section.model_fields_set:
        return ""
    ratios = [(width / height) / (section.size[1] / section.size[0]) for height, width in sizes]
    far = [max(ratio, 1 / ratio) for ratio in ratios if max(ratio, 1 / ratio) > STRETCHED]
    if not far:
        return ""
    what = f"data.fit: {len(far)} of {among} are stretched, up to {max(far):.2g} times"
    return f"{what}, to {size}: `fit: crop` keeps proportions, `fit: resize` says it is meant"


def _enlarged(section: DataSection, sizes: list[Size], among: str, size: str) -> str:
    if section.fit == "exact":
        return ""
    if section.buckets is not None:
        size = "their buckets"
    factors, hardly = list[float](), 0
    for height, width in sizes:
        bucket = section.size if section.buckets is None else size_for((height, width), section)
        if bucket is None:
            continue
        seen = window((height, width), section.at(bucket), None)
        rows, columns = seen.bottom - seen.top, seen.right - seen.left
        factors.append(max(bucket[0] / rows, bucket[1] / columns))
        hardly += rows * columns < HARDLY * height * width
    larger = [factor for factor in factors if factor > 1]
    parts = [f"{len(larger)} of {among} are enlarged to {size}, up to {max(larger):.3g} times"] if larger else []
    parts += [f"of {hardly} {'' if parts else f'of {among} '}less than half is seen"] if hardly else []
    return f"data.size: {'; '.join(parts)}" if parts else ""


def said_of_unused(batches: Batches, dataset: Dataset, steps: int) -> str | None:
    """What is to be said of pictures that a run never comes to."""
    if not (left := batches.unused(steps)):
        return None
    ids = first_few(dataset.id(index) for index in left)
    what = f"data.buckets: {len(left)} of {len(dataset)} pictures are in none of the {steps} batches: {ids}"
    return f"{what}; their buckets are not full by then (more steps, a smaller batch, or a larger step of buckets)"


def said_of_lying(dataset: Dataset, masks: Collection[str] = ()) -> list[str]:
    """What is to be said of files that lie on their pictures: they are stretched, or black masks.

    Args:
        masks: inputs that weigh errors.
    """
    ratios: dict[Place, list[float]] = {}
    black: dict[Place, list[bool]] = {}
    for place, values, (height, width) in _beside(dataset):
        rows, columns = values.shape[:2]
        near = abs(width * rows - columns * height) <= max(height, width)  # as sides are rounded
        ratio = 1.0 if near else (width / height) / (columns / rows)
        ratios.setdefault(place, []).append(max(ratio, 1 / ratio))
        if place.name in masks:
            black.setdefault(place, []).append(not values.any())
    said = []
    for place, found in ratios.items():
        if far := [ratio for ratio in found if ratio > STRETCHED]:
            what = f"data: {str(place)!r} of {len(far)} of {len(found)} samples looked at has other proportions than"
            said.append(f"{what} the picture, and is stretched onto it, up to {max(far):.2g} times")
    for place, blacks in black.items():
        if sum(blacks):
            what = f"objective.mask: {str(place)!r} of {sum(blacks)} of {len(blacks)} samples looked at is black"
            said.append(f"{what} everywhere: all errors of their pictures count `outside` (white is what counts whole)")
    return said


def _beside(dataset: Dataset) -> Iterator[tuple[Place, Any, Size]]:
    """What lies on pictures, decoded, with the (height, width) of its picture."""
    lying = spatial_inputs_of(dataset)
    for index in held_out(len(dataset), MOST_BESIDE) if lying else ():
        found: list[tuple[Place, Any]] = []
        try:
            size = dataset.picture_size(index) or dataset[index].image.shape[:2]
            replaced(dataset.inputs(index), lying, lambda value, place: found.append((place, value)))  # noqa: B023
        except InputError:
            continue
        for place, values in found:
            yield place, values, (size[0], size[1])
