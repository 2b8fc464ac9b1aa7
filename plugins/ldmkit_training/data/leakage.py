"""Detects held-out samples that are also in the training data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ldmkit import Dataset
from ldmkit_training.data.batches import held_out
from ldmkit_training.data.section import DataSection
from ldmkit_training.data.sources.records import first_few

MOST_HELD = 1000
"""Held-out samples that are looked at, at equal distances."""

MOST_TRAINED = 20_000
"""Training samples up to which all are compared by content (2 s or so); beyond, those of the same file names."""


def leaked(section: DataSection, train: Dataset, held: Dataset | None) -> str | None:
    """What is to be said of pictures that are held out and trained on; None: nothing is, as far as content tells.

    Sources that cannot give their content without decoding pictures are compared by their configs alone.
    """
    if held is None:
        return None
    if section.validation == section.train:
        return "data.validation is data.train: what is measured on it is what was learnt by heart"
    looked_at = held_out(len(held), MOST_HELD)
    digests = {digest: held.id(index) for index, digest in _pictures(held, looked_at)}
    if not digests:
        return None
    rows: Iterable[int] = range(len(train))
    if len(train) > MOST_TRAINED:
        names = {_name(held.id(index)) for index in looked_at}
        rows = (index for index in rows if _name(train.id(index)) in names)
    shared = sorted(digests.keys() & {digest for _, digest in _pictures(train, rows)})
    if not shared:
        return None
    whole = "" if len(looked_at) == len(held) else " looked at"
    ids = first_few(sorted(digests[digest] for digest in shared))
    what = f"{len(shared)} of {len(digests)} held-out pictures{whole} are in the training data too: {ids}"
    return f"data.validation: {what}: what is measured on them is what was learnt by heart"


def _pictures(dataset: Dataset, rows: Iterable[int]) -> Iterable[tuple[int, bytes]]:
    for index in rows:
        content = dataset.content(index)
        if content is None:
            return
        yield index, hashlib.sha256(content[1]).digest()


def _name(sample: str) -> str:
    return sample.rpartition("/")[2]
