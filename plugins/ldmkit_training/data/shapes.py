"""What a recipe's size and fit do to pictures, from their headers: stretched, enlarged, or hardly seen."""

from __future__ import annotations

from ldmkit import Dataset, InputError
from ldmkit_training.data.batches import held_out
from ldmkit_training.data.buckets import size_for
from ldmkit_training.data.geometry import window
from ldmkit_training.data.section import DataSection

Size = tuple[int, int]

MOST = 1000
"""Pictures whose headers are read, at equal distances (0.1 s or so)."""
MOST_DECODED = 16
"""The same of sources that cannot tell a size without decoding."""
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
