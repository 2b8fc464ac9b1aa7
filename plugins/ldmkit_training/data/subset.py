"""Some samples of a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ldmkit import Dataset, Sample


class Subset(Dataset):
    """The samples of a source at some indices, in their order.

    Args:
        members: indices, increasing.
        notes: beside nothing of the source's own, which its other samples may be about.
    """

    def __init__(self, dataset: Dataset, members: Sequence[int], notes: Sequence[str] = ()) -> None:
        self.dataset, self.members, self.notes = dataset, list(members), tuple(notes)
        self.geometry, self.numbering, self.choices = dataset.geometry, dataset.numbering, dataset.choices
        ends = np.cumsum([count for count, _ in dataset.mixture])
        stretches = np.searchsorted(ends, self.members, side="right")
        counts = np.bincount(stretches, minlength=len(dataset.mixture)).tolist() if dataset.mixture else []
        shares = zip(counts, dataset.mixture, strict=True)
        self.mixture = tuple((count, draws) for count, (_, draws) in shares if count)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.members[index]]

    def id(self, index: int) -> str:
        return self.dataset.id(self.members[index])

    def inputs(self, index: int) -> Mapping[str, Any]:
        return self.dataset.inputs(self.members[index])

    def known(self, index: int) -> Mapping[str, Any] | None:
        return self.dataset.known(self.members[index])

    def base(self, index: int, name: str) -> Path | None:
        return self.dataset.base(self.members[index], name)

    def content(self, index: int) -> tuple[bytes, bytes] | None:
        return self.dataset.content(self.members[index])

    def picture_size(self, index: int) -> tuple[int, int] | None:
        return self.dataset.picture_size(self.members[index])

    @property
    def fingerprint(self) -> str:
        return f"{self.dataset.fingerprint}\n{self.members}"
