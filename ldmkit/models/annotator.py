"""Sources of data that add to another one what can be computed from its pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ldmkit.contracts.data import Data, Dataset, Geometry, Sample
from ldmkit.contracts.wrapping import Wrapping
from ldmkit.errors import InputError, SpecError
from ldmkit.models.compose import build_value
from ldmkit.models.spec import PartSpec


class Annotator(Data, ABC):
    """Any other source of data, with inputs that are computed from each picture: edges, depth, colours, a caption.

    A subclass sets `adds` and writes `annotate`. It sees the whole picture: what lies on the picture, and so has to be
    cropped with it, is a map (`ldmkit.ValueMap`, a picture or a mask as a data URI) or boxes.

    Args:
        source: a part of kind `data`.
    """

    adds: ClassVar[Mapping[str, Geometry]]
    """Name of each new input -> how a crop changes it, see `Dataset.geometry`."""
    revision: ClassVar[int] = 1
    """Raise it when `annotate` makes something else of the same picture: caches and running trainings then know."""

    source: PartSpec

    @abstractmethod
    def annotate(self, image: np.ndarray) -> Mapping[str, Any]:
        """The new inputs of a picture (H,W,3) uint8, the same whenever it is asked: plain data, and arrays for maps of
        labels. An input that this picture has not is left out."""

    def open(self, folder: Path) -> Dataset:
        """See `Data.open`.

        Raises:
            SpecError: `input-twice`: the source has an input of that name already.
        """
        source: Data = build_value("data", self.source, "source")
        return AnnotatedDataset(self, source.open(folder))

    def write_example(self, folder: Path) -> None:
        """See `Data.write_example`: the source's."""
        source: Data = build_value("data", self.source, "source")
        source.write_example(folder)


class AnnotatedDataset(Wrapping):
    """The samples of `dataset` with what `annotator` makes of their pictures beside their inputs."""

    def __init__(self, annotator: Annotator, dataset: Dataset) -> None:
        super().__init__(dataset)
        for name in annotator.adds:
            if name in dataset.geometry:
                what = f"{annotator.source.type!r} has the input {name!r}, which is to be added"
                raise SpecError("input-twice", what, where="source", fits="another name")
        self.annotator = annotator
        self.geometry = {**dataset.geometry, **annotator.adds}

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        added = self.annotator.annotate(sample.image)
        for name in added:
            if name not in self.annotator.adds:
                what = f"annotate gives {name!r}, which is not in `adds`"
                raise InputError("bad-sample", what, where=sample.id, fits=", ".join(self.annotator.adds))
        return replace(sample, inputs={**sample.inputs, **added})

    def inputs(self, index: int) -> Mapping[str, Any]:
        return self[index].inputs

    def content(self, index: int) -> tuple[bytes, bytes] | None:
        found = self.dataset.content(index)
        return None if found is None else (found[0] + self._settings().encode(), found[1])

    @property
    def fingerprint(self) -> str:
        return f"{self._settings()}\n{self.dataset.fingerprint}"

    def _settings(self) -> str:
        kind = type(self.annotator)
        config = self.annotator.model_dump_json(exclude={"source"})
        return f"{kind.__module__}:{kind.__qualname__} {self.annotator.revision} {config}"
