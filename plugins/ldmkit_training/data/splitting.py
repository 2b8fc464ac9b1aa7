"""A held-out part of one source, by the content of its pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from ldmkit import Dataset, InputError
from ldmkit.contracts.data_content import sample_bytes
from ldmkit_training.data.sources.records import first_few
from ldmkit_training.data.subset import Subset


class Split(NamedTuple):
    """Two parts of a source that share no picture."""

    train: Subset
    held: Subset


def split(dataset: Dataset, wanted: float, damaged: str) -> Split:
    """Hold some samples of a source out.

    Which ones depends on what the pictures' files hold alone, not on names, order or seed: samples of the same picture
    stand on the same side. They are those of the smallest digests.

    Args:
        wanted: number of samples, or below 1 a share of them; as many as its last picture's duplicates more.
        damaged: of the data section.

    Raises:
        InputError: `no-samples`: nothing would be left on one side.
    """
    groups: dict[bytes, list[int]] = {}
    for index in range(len(dataset)):
        groups.setdefault(_digest(dataset, index, damaged), []).append(index)
    target = max(1, round(wanted * len(dataset))) if wanted < 1 else int(wanted)
    held: list[int] = []
    for digest in sorted(groups):
        if len(held) >= target:
            break
        held.extend(groups[digest])
    kept = sorted(set(range(len(dataset))) - set(held))
    if not kept:
        what = f"all {len(held)} samples ({len(groups)} different pictures) would be held out, and none trained on"
        raise InputError("no-samples", what, where="data.held_out", fits="a smaller number or share, or more pictures")
    shared = [members for members in groups.values() if len(members) > 1]
    said = [f"{len(held)} of {len(dataset)} samples are held out, by their pictures' content: {len(kept)} are trained"]
    if shared:
        twins = first_few(dataset.id(index) for index in shared[0])
        many = sum(map(len, shared))
        said.append(f"{many} samples share their picture with others ({twins}), and stand on one side together")
    notes = [*dataset.notes, *said, *_emptied(dataset, kept)]
    return Split(Subset(dataset, kept, notes), Subset(dataset, sorted(held)))


def _emptied(dataset: Dataset, kept: Sequence[int]) -> list[str]:
    """What is to be said of sources of a mixture that are held out whole."""
    before, now = len(dataset.mixture), len(Subset(dataset, kept).mixture)
    return [f"{before - now} of the sources are held out whole"] if now < before else []


def _digest(dataset: Dataset, index: int, damaged: str) -> bytes:
    """Of a sample's picture, without what is known about it; decoded where its source cannot tell otherwise."""
    content = dataset.content(index)
    if content is None:
        try:
            content = b"", sample_bytes({}, dataset[index].image)[1]
        except InputError as problem:
            if damaged != "skip" or problem.code != "input.bad-file":
                raise
            content = b"", dataset.id(index).encode()
    return hashlib.sha256(content[1]).digest()
