"""Inputs that are files: resolves their paths, and includes their content in the data's identity."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ldmkit import Dataset, Sample
from ldmkit.contracts.wrapping import Wrapping
from ldmkit_training.data.identity import file_bytes, joined, known_bytes
from ldmkit_training.data.places import Place, replaced
from ldmkit_training.data.sources.records import first_few, stamp


class Located(Wrapping):
    """A source whose inputs name files: relative paths start from the data's folder, and what the files hold is part of
    the data's identity and fingerprint.

    Args:
        places: inputs, or fields of inputs, that a model reads as pictures.
    """

    def __init__(self, dataset: Dataset, places: Collection[Place]) -> None:
        super().__init__(dataset)
        self.places = tuple(places)
        self.notes = (*self.notes, *self._outside())

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        return Sample(sample.id, sample.image, self._found(index, sample.inputs))

    def inputs(self, index: int) -> Mapping[str, Any]:
        return self._found(index, self.dataset.inputs(index))

    def known(self, index: int) -> Mapping[str, Any] | None:
        known = self.dataset.known(index)
        return None if known is None else self._found(index, known)

    def content(self, index: int) -> tuple[bytes, bytes] | None:
        found, known = self.dataset.content(index), self.dataset.known(index)
        if found is None or known is None:
            return None
        files: list[bytes] = []

        def taken(value: Any, place: Place) -> str:
            for one in _each(value):
                path = self._path(index, one, place)
                files.append(f"{place}:".encode() + (known_bytes({"value": one}) if path is None else file_bytes(path)))
            return str(place)

        return known_bytes(replaced(known, self.places, taken)), joined([found[1], *files])

    @property
    def fingerprint(self) -> str:
        parts = [self.dataset.fingerprint, ", ".join(map(str, self.places))]
        for index in range(len(self)):
            parts += [stamp(path) for path, _ in self._paths(index)]
        return "\n".join(parts)

    def _found(self, index: int, inputs: Mapping[str, Any]) -> dict[str, Any]:
        def full(value: Any, place: Place) -> Any:
            if isinstance(value, list):
                return [full(one, place) for one in value]
            path = self._path(index, value, place)
            return value if path is None else str(path)

        return replaced(inputs, self.places, full)

    def _path(self, index: int, value: Any, place: Place) -> Path | None:
        """The file that an input names; None for what is no path."""
        if not isinstance(value, (str, Path)) or (isinstance(value, str) and value.startswith("data:")):
            return None
        base = self.dataset.base(index, place.name)
        return Path(value) if base is None else base / value

    def _paths(self, index: int) -> list[tuple[Path, Path | None]]:
        """The files that a sample's inputs name, and the folder that each path starts from."""
        found: list[tuple[Path, Path | None]] = []

        def seen(value: Any, place: Place) -> Any:
            for one in _each(value):
                if (path := self._path(index, one, place)) is not None:
                    found.append((path, self.dataset.base(index, place.name)))
            return value

        replaced(self.dataset.known(index) or {}, self.places, seen)
        return found

    def _outside(self) -> list[str]:
        """What lies outside of the folder that paths start from: read, and said."""
        files = (one for index in range(len(self)) for one in self._paths(index))
        found = [
            str(path) for path, base in files if base is not None and not _plain(path).is_relative_to(_plain(base))
        ]
        return [f"{len(found)} input(s) are files outside of the data folder: {first_few(found)}"] if found else []


def _each(value: Any) -> list[Any]:
    """An input that is one picture or several."""
    return value if isinstance(value, list) else [value]


def _plain(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))
