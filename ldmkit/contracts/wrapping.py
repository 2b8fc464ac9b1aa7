"""A base class of sources that wrap another one and pass on what they do not change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit.contracts.data import Dataset, Sample


class Wrapping(Dataset):
    """The same samples as another source.

    Args:
        dataset: the other source.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.geometry, self.notes = dataset, dataset.geometry, tuple(dataset.notes)
        self.mixture, self.numbering, self.choices = dataset.mixture, dataset.numbering, dataset.choices

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index]

    def id(self, index: int) -> str:
        return self.dataset.id(index)

    def inputs(self, index: int) -> Mapping[str, Any]:
        return self.dataset.inputs(index)

    def known(self, index: int) -> Mapping[str, Any] | None:
        return self.dataset.known(index)

    def content(self, index: int) -> tuple[bytes, bytes] | None:
        return self.dataset.content(index)

    def picture_size(self, index: int) -> tuple[int, int] | None:
        return self.dataset.picture_size(index)

    def base(self, index: int, name: str) -> Path | None:
        return self.dataset.base(index, name)

    @property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint
